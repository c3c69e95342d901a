"""Two miners with different GPUs, two validators, three chutes: instances follow demand.

And whatever is killed leaves nothing behind.

What else may go wrong on an engine has files of its own: dockerd (test_engine_killed*), a full disk
(test_disk_full), an archive that is corrupt or never arrives (test_image_transfers).
"""

import threading

import httpx
import pytest

from chutes_core.engine.connect import connect
from scripts.localnet import Localnet, miner_hotkey, wait_until
from scripts.localuser import EXAMPLES
from scripts.runtimes import ensure_base_image
from tests.docker.conftest import SMALL
from tests.docker.test_escapes import containers_of
from tests.e2e.operators import status_of
from tests.e2e.patience import CALL_S
from tests.e2e.people import rich_user

pytestmark = pytest.mark.timeout(900)
PATIENCE_S = 240
QUICK = {**SMALL, "LEASE_BLOCKS": "40", "MIN_RUN_SECONDS": "5"}
GPUS = {1: "h100_sxm:1", 2: "a100:1"}


class House:
    """The network and what its operators and users see."""

    def __init__(self, net):
        self.net = net
        self.validators = {n: net.start_validator(n) for n in (1, 2)}
        self.miners, self.built = {}, set()
        for number in GPUS:
            net.register_miner(number)
            self.start(number)
        self.users = {n: rich_user(net, self.url(n), f"user{n}") for n in (1, 2)}

    def extra(self, number):
        return {**QUICK, "DECLARE_GPU": GPUS[number]}

    def start(self, number):
        self.miners[number] = self.net.start_miner(number, extra=self.extra(number))

    def url(self, number):
        return str(self.validators[number].ready["url"])

    def deploy(self, validator, name, gpu):
        """Deploy the echo chute under another name, for one class of GPU; its image once."""
        user = self.users[validator]
        folder = self.net.folder / f"user-{user.username}" / "chutes"
        folder.mkdir(parents=True, exist_ok=True)
        text = (EXAMPLES / "echo.py").read_text()
        for old, new in (
            ('username="demo"', f'username="{user.username}"'),
            ("min_vram_gb_per_gpu=16", f'include=["{gpu}"]'),
            ('    name="echo",\n    image=image', f'    name="{name}",\n    image=image'),
        ):
            assert old in text
            text = text.replace(old, new)
        (folder / f"{name}.py").write_text(text)
        (user.deploy_built if validator in self.built else user.deploy)(name, folder=folder)
        self.built.add(validator)

    def call(self, validator, name, text="x", timeout=CALL_S):
        user = self.users[validator]
        url = f"{user.url}/c/{user.username}-{name}/echo"
        return httpx.post(url, json={"text": text}, headers=user.headers, timeout=timeout)

    def status(self, number):
        return status_of(self.net, number, self.extra(number))

    def serves(self, number, validator):
        """Tell whether a miner has an active launch for a validator."""
        hotkey = str(self.validators[validator].ready["hotkey"])
        launches = self.status(number)["launches"]
        return any(one["state"] == "active" and one["validator"] == hotkey for one in launches)

    def answers(self, validator, name):
        return self.call(validator, name).status_code == 200


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    ensure_base_image()
    folder = tmp_path_factory.mktemp("two-and-two")
    with Localnet(folder, block_seconds=0.5, tempo=40, runtime="docker") as net:
        yield House(net)


def orphans(house):
    """Containers that no launch of their miner knows."""
    found = []
    for number in GPUS:
        known = {one["launch_id"] for one in house.status(number)["launches"]}
        found += [c for c in containers_of(number) if c["Labels"]["chutes.launch"] not in known]
    return found


def settled(house):
    """Every container is some launch's, every launch has its container, every GPU its reason."""
    for number in GPUS:
        status = house.status(number)
        chutes = [one for one in status["launches"] if one["chute_id"] != "attestation"]
        if len(containers_of(number)) != len(chutes):
            return False
        if any(not gpu["idle_reason"] and not gpu["launch_id"] for gpu in status["gpus"]):
            return False
    return not orphans(house)


def test_instances_follow_demand_over_miners_and_validators(house):
    """Each chute runs on the miner that has its GPU; when another validator wants it, it moves."""
    house.deploy(1, "onh100", "h100_sxm")
    wait_until(lambda: house.answers(1, "onh100"), PATIENCE_S, "the H100 to serve")
    wait_until(lambda: house.serves(1, 1), PATIENCE_S, "miner 1 to know it")
    house.deploy(1, "ona100", "a100")
    wait_until(lambda: house.answers(1, "ona100"), PATIENCE_S, "the A100 to serve")
    wait_until(lambda: house.serves(2, 1), PATIENCE_S, "miner 2 to know it")
    house.deploy(2, "moves", "a100")  # the only A100 is lent to validator 1: it goes back
    house.users[1].chutes("chutes", "delete", "ona100", "--yes")
    wait_until(lambda: house.answers(2, "moves"), PATIENCE_S, "the A100 to serve validator 2")
    wait_until(lambda: house.serves(2, 2), PATIENCE_S, "miner 2 to know it")
    ended = house.status(2)["ended"]
    assert ended.keys() & {"chute_deleted", "share_returned", "lease_lapsed"}
    wait_until(lambda: settled(house), PATIENCE_S, "nothing to be left over")


def test_a_killed_container_leaves_its_reason_and_is_replaced(house):
    """kill -9 of an instance: the operator reads why, and the chute answers again."""
    (container,) = containers_of(1)
    client = connect(None)
    client.api.kill(container["Id"])
    client.close()
    wait_until(
        lambda: "killed_sigkill" in house.status(1)["ended"], PATIENCE_S, "the end to be noticed"
    )
    wait_until(lambda: house.answers(1, "onh100"), PATIENCE_S, "the chute to answer again")
    wait_until(lambda: settled(house), PATIENCE_S, "nothing to be left over")


def test_a_killed_miner_and_a_killed_validator_lose_nothing(house):
    """kill -9 of both: they find each other and the same instance again, and no GPU is lost."""
    (before,) = containers_of(1)
    house.miners[1].kill()
    port = int(house.url(1).rsplit(":", 1)[1])
    house.validators[1].kill()
    house.start(1)
    house.validators[1] = house.net.start_validator(1, port=port)
    wait_until(lambda: house.answers(1, "onh100"), PATIENCE_S, "the chute to answer again")
    wait_until(lambda: settled(house), PATIENCE_S, "nothing to be left over")
    adopted = {c["Id"] for c in containers_of(1)} == {before["Id"]}
    assert adopted or house.status(1)["ended"]


def test_a_miner_that_is_stopped_lets_calls_end_and_leaves_nothing(house):
    """SIGTERM under calls: each is answered or refused with a code; its containers are gone."""
    answers, stop = [], threading.Event()

    def calls():
        while not stop.is_set():
            answers.append(house.call(1, "onh100"))

    caller = threading.Thread(target=calls)
    caller.start()
    wait_until(lambda: len(answers) >= 3, PATIENCE_S, "calls to be answered")
    assert house.miners[1].terminate(timeout_s=PATIENCE_S) == 0
    stop.set()
    assert containers_of(1) == []
    caller.join()
    assert all(one.status_code == 200 or one.json()["code"] for one in answers)
    assert [one.status_code for one in answers[:3]] == [200] * 3
    owner = miner_hotkey(1).ss58_address
    client = connect(None)
    networks = client.api.networks(filters={"label": f"chutes.miner={owner}"})
    client.close()
    assert networks == []
