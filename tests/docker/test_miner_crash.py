"""kill -9 of a miner on Docker: an honest end of the call, and the restarted one takes over."""

import threading

import httpx
import pytest

from chutes_core.engine.connect import connect
from scripts.localnet import wait_until
from tests.docker.conftest import SMALL
from tests.docker.test_escapes import FOLDER, containers_of
from tests.e2e.people import rich_user

pytestmark = pytest.mark.timeout(400)


def has_printed(container, word):
    client = connect(None)
    try:
        return word in client.api.logs(container["Id"]).decode(errors="replace")
    finally:
        client.close()


def test_a_killed_miner_finds_its_containers_again(docker_net):
    """The running call ends as an answer or an error with a code; nothing is orphaned."""
    user = rich_user(docker_net, str(docker_net.validator.ready["url"]), "second")
    own = docker_net.folder / "own"
    own.mkdir()
    text = (FOLDER / "prisoner.py").read_text()
    (own / "prisoner.py").write_text(text.replace('username="demo"', 'username="second"'))
    user.deploy("prisoner", folder=own)
    user.chutes("warmup", "prisoner")
    url, answers = f"{user.url}/c/second-prisoner", []

    def linger():
        body = {"seconds": 5, "word": "lingering"}
        answers.append(httpx.post(f"{url}/linger", json=body, headers=user.headers, timeout=90))

    def busy():
        return [(n, c) for n in (1, 2) for c in containers_of(n) if has_printed(c, "lingering")]

    caller = threading.Thread(target=linger)
    caller.start()
    wait_until(busy, 30, "the call to run in an instance")
    ((number, container),) = busy()
    docker_net.miners[number].kill()
    until_then = docker_net.miners[number].log.stat().st_size
    docker_net.miners[number] = docker_net.start_miner(number, extra=SMALL)
    caller.join()
    (answer,) = answers
    assert answer.status_code == 200 or answer.json()["code"]

    def serves():
        body = {"paths": ["/tmp"]}
        again = httpx.post(f"{url}/write", json=body, headers=user.headers, timeout=60)
        return again.status_code == 200

    wait_until(serves, 60, "the chute to answer again")

    def accounted_for():
        # Adopted; or, where the validator gave the launch up before the miner was back, removed.
        log = docker_net.miners[number].log.read_bytes()[until_then:].decode()
        kept = container["Id"] in {c["Id"] for c in containers_of(number)}
        return ("running instance was adopted" if kept else "instance was ended") in log

    wait_until(accounted_for, 40, "the container to be adopted or removed")
