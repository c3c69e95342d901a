"""kill -9 of a miner on Docker: an honest end of the call, and the restarted one takes over."""

import threading

import httpx
import pytest

from chutes_core.engine.connect import connect
from chutes_core.engine.run import LAUNCH_LABEL
from scripts.localnet import wait_until
from tests.docker.conftest import SMALL
from tests.docker.test_escapes import FOLDER, containers_of
from tests.e2e.patience import CALL_S, PATIENCE_S
from tests.e2e.people import rich_user

pytestmark = pytest.mark.timeout(400)


def has_printed(container, word):
    client = connect(None)
    try:
        return word in client.api.logs(container["Id"]).decode(errors="replace")
    finally:
        client.close()


class Caller:
    """A user with the chute hot, calling it."""

    def __init__(self, net):
        self.net = net
        self.user = rich_user(net, str(net.validator.ready["url"]), "second")
        own = net.folder / "own"
        own.mkdir()
        text = (FOLDER / "prisoner.py").read_text()
        (own / "prisoner.py").write_text(text.replace('username="demo"', 'username="second"'))
        self.user.deploy("prisoner", folder=own)
        self.user.chutes("warmup", "prisoner")
        self._url = f"{self.user.url}/c/second-prisoner"

    def serves(self):
        """Tell whether a call is answered now."""
        return self._post("write", {"paths": ["/tmp"]}).status_code == 200

    def kill_under_a_call(self, word):
        """Kill the miner that a call runs at; return its number, the container, the call's end."""
        answers = []

        def linger():
            answers.append(self._post("linger", {"seconds": 5, "word": word}))

        def busy():
            return [(n, c) for n in (1, 2) for c in containers_of(n) if has_printed(c, word)]

        caller = threading.Thread(target=linger)
        caller.start()
        wait_until(busy, PATIENCE_S, "the call to run in an instance")
        ((number, container),) = busy()
        self.net.miners[number].kill()

        def end():
            caller.join()
            (answer,) = answers
            return answer

        return number, container["Id"], end

    def _post(self, cord, body):
        url = f"{self._url}/{cord}"
        return httpx.post(url, json=body, headers=self.user.headers, timeout=CALL_S)


@pytest.fixture(scope="module")
def caller(docker_net):
    caller = Caller(docker_net)
    yield caller
    caller.user.chutes("chutes", "delete", "prisoner", "--yes")


def launch_of(number, container_id):
    (launch,) = {
        c["Labels"][LAUNCH_LABEL] for c in containers_of(number) if c["Id"] == container_id
    }
    return launch


def is_kept(number, container_id):
    return container_id in {one["Id"] for one in containers_of(number)}


def test_a_killed_miner_finds_its_containers_again(docker_net, caller):
    """The running call ends as an answer or an error with a code; nothing is orphaned."""
    number, container_id, end = caller.kill_under_a_call("first")
    until_then = docker_net.miners[number].log.stat().st_size
    docker_net.miners[number] = docker_net.start_miner(number, extra=SMALL)
    answer = end()
    assert answer.status_code == 200 or answer.json()["code"]
    wait_until(caller.serves, PATIENCE_S, "the chute to answer again")

    def accounted_for():
        # Adopted; or, where the validator gave the launch up before the miner was back, removed.
        log = docker_net.miners[number].log.read_bytes()[until_then:].decode()
        kept = is_kept(number, container_id)
        return ("running instance was adopted" if kept else "instance was ended") in log

    wait_until(accounted_for, PATIENCE_S, "the container to be adopted or removed")


def test_a_dead_miners_instance_leaves_the_routing_table(docker_net, caller):
    """The other miner takes over while it is dead; back again, it removes its container."""
    user = caller.user

    def routed():
        found = user.get("/chutes/prisoner")["instances"]
        return {one["instance_id"] for one in found if one["active"]}

    wait_until(routed, PATIENCE_S, "an active instance")
    number, container_id, end = caller.kill_under_a_call("second")
    dead = launch_of(number, container_id)  # another one may serve beside it
    answer = end()
    assert answer.status_code == 200 or answer.json()["code"]
    wait_until(lambda: dead not in routed(), PATIENCE_S, "the dead one to leave the routing table")
    wait_until(caller.serves, PATIENCE_S, "the other miner to answer")
    assert is_kept(number, container_id)
    assert [c for c in containers_of(3 - number) if c["State"] == "running"]
    docker_net.miners[number] = docker_net.start_miner(number, extra=SMALL)
    gone = lambda: not is_kept(number, container_id)  # noqa: E731 - short
    wait_until(gone, PATIENCE_S, "the dead container to be removed")
