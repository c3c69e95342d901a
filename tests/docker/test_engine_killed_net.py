"""kill -9 of dockerd under a whole network: validator, miner with its relay, a call on its way.

All of it lives in the network namespace of an engine of the test's own.
"""

import os
import shutil
import threading

import httpx
import pytest

from chutes_core.engine.connect import connect
from chutes_core.engine.run import LAUNCH_LABEL
from scripts.localnet import Localnet, wait_until
from scripts.runtimes import ensure_base_image
from tests.docker.conftest import SMALL
from tests.docker.engines import OwnEngine, processes
from tests.docker.test_escapes import FOLDER
from tests.docker.test_miner_crash import has_printed
from tests.e2e.patience import CALL_S, PATIENCE_S
from tests.e2e.people import rich_user

RUNNER = "chutes_core.runner"
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="no dockerd is installed here"),
]


@pytest.fixture
def engine():
    """An engine with the base image; everything of this thread runs in its namespace."""
    ensure_base_image()
    engine = OwnEngine()
    before = os.environ.get("DOCKER_HOST")
    try:
        engine.start().close()
        engine.take_base()
        os.environ["DOCKER_HOST"] = engine.host
        with engine.entered():
            yield engine
    finally:
        if before is None:
            os.environ.pop("DOCKER_HOST", None)
        else:
            os.environ["DOCKER_HOST"] = before
        engine.remove()


@pytest.fixture
def net(engine, tmp_path):
    """One validator and one miner on that engine, with one hot chute."""
    with Localnet(tmp_path / "net", block_seconds=0.5, tempo=40, runtime="docker") as net:
        validator = net.start_validator(1, extra={"BUILD_MIN_FREE_BYTES": "0"})
        net.register_miner(1)
        net.miner = net.start_miner(1, extra=SMALL)
        net.user = rich_user(net, str(validator.ready["url"]))
        net.user.deploy("prisoner", folder=FOLDER)
        net.user.chutes("warmup", "prisoner")
        yield net


def containers(engine):
    client = connect(engine.host)
    try:
        listed = client.api.containers(all=True, filters={"label": LAUNCH_LABEL})
        return {one["Id"]: one["State"] for one in listed}
    finally:
        client.close()


def write(user):
    url = f"{user.url}/c/demo-prisoner/write"
    return httpx.post(url, json={"paths": ["/tmp"]}, headers=user.headers, timeout=CALL_S)


def active(user):
    return [one for one in user.get("/chutes/prisoner")["instances"] if one["active"]]


def test_a_killed_engine_is_recovered_from(engine, net):
    """The call ends with an answer or a code; the miner says what is wrong and hosts again."""
    user, answers = net.user, []
    assert write(user).status_code == 200
    (before,) = containers(engine)

    def linger():
        body = {"seconds": 4, "word": "lingering"}
        url = f"{user.url}/c/demo-prisoner/linger"
        answers.append(httpx.post(url, json=body, headers=user.headers, timeout=2 * CALL_S))

    caller = threading.Thread(target=linger)
    caller.start()
    wait_until(lambda: has_printed({"Id": before}, "lingering"), PATIENCE_S, "the call to run")
    engine.kill()
    # Its own look has failed: the code alone may be a launch's that found the engine away, and
    # then the runtime, which looks again once the engine is back, says neither this nor the other.
    wait_until(lambda: said(net.miner, "Docker engine: "), PATIENCE_S, "the miner to notice")
    assert said(net.miner, "engine_unreachable")
    engine.start().close()
    caller.join(3 * CALL_S)
    (answer,) = answers
    assert answer.status_code == 200 or answer.json()["code"]
    goes_on = lambda: said(net.miner, "Docker engine answers again")  # noqa: E731 - short
    wait_until(goes_on, PATIENCE_S, "the miner to go on")
    removed = lambda: before not in containers(engine)  # noqa: E731 - short
    wait_until(removed, PATIENCE_S, "the ended container to be removed")
    wait_until(lambda: write(user).status_code == 200, PATIENCE_S, "the chute to answer again")
    left = containers(engine)
    assert set(left.values()) == {"running"}
    assert len(left) == len(active(user)) == 1
    # Between fork and exec of some child, one look would see it and the other not.
    wait_until(lambda: runners(engine) == inside(engine, *left), PATIENCE_S, "no other runner")


def said(process, text):
    return text in process.log.read_text(errors="replace")


def runners(engine):
    """Return the processes of runners in this engine's containers."""
    shims = set(processes(str(engine.folder)))
    return {pid for pid in processes(RUNNER) if ancestors(pid) & shims}


def inside(engine, container_id):
    """Return the processes of one container."""
    client = connect(engine.host)
    try:
        shown = client.api.top(container_id)
        return {int(row[shown["Titles"].index("PID")]) for row in shown["Processes"]}
    finally:
        client.close()


def ancestors(pid):
    found = set()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.add(pid)
    return found
