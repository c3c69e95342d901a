"""A chute's next version takes the place of the one before while calls go on, and none fails."""

import threading

import httpx
import pytest

from scripts.localnet import Localnet, wait_until
from tests.e2e.people import rich_user

pytestmark = pytest.mark.timeout(600)
GRACE_S = 5
SAYS = "return text"
FAILS = 'import os\nassert os.environ.get("CHUTES_EXECUTION_CONTEXT") != "REMOTE", "only here"\n'
LONG_S = 180  # what a busy machine may need for a launch; waits end when the thing happens


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A validator and one miner with one GPU; a second miner is started by the last test."""
    folder = tmp_path_factory.mktemp("net")
    with Localnet(folder, block_seconds=0.5, tempo=40) as net:
        extra = {"ROLLOVER_GRACE_S": str(GRACE_S), "COLD_WAIT_S": "120"}
        net.validator = net.start_validator(1, extra=extra)
        net.register_miner(1)
        net.register_miner(2)
        net.start_miner(1)
        yield net


@pytest.fixture(scope="module")
def user(net):
    """A paying user whose chute `echo` answers with v1 in front."""
    user = rich_user(net, net.validator.ready["url"], "roller")
    slots = ("    image=image,", "    image=image,\n    concurrency=4,")
    user.deploy_as_own("echo", changes=[(SAYS, 'return f"v1 {text}"'), slots])
    user.chutes("warmup", "echo")
    return user


def say(user):
    return user.post("/c/roller-echo/echo", {"text": "a"}).json().split()[0]


def next_version(user, old, new):
    """Deploy the chute with a changed text; return what the validator says of it."""
    folder = user._folder / "chutes"
    text = (folder / "echo.py").read_text()
    assert old in text
    (folder / "echo.py").write_text(text.replace(old, new))
    return user.deploy_built("echo", folder=folder)


def serving(user):
    """Return the versions of the chute's active instances."""
    return {one["version"] for one in user.get("/chutes/echo")["instances"] if one["active"]}


class Callers:
    """Two callers that call one after another until they are told to stop."""

    def __init__(self, user):
        self._user = user
        self._stop = threading.Event()
        self.heard = ([], [])
        self.failed = []
        self._threads = [threading.Thread(target=self._call, args=(into,)) for into in self.heard]

    def _call(self, into):
        with httpx.Client(headers=self._user.headers, timeout=LONG_S) as http:
            while not self._stop.is_set():
                answer = http.post(f"{self._user.url}/c/roller-echo/echo", json={"text": "a"})
                if answer.status_code == 200:
                    into.append(answer.json().split()[0])
                else:
                    self.failed.append((answer.status_code, answer.text))
                self._stop.wait(0.05)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_without_a_second_gpu_the_old_version_makes_room(net, user):
    """After the grace time the old instance leaves, and callers wait for the new one's start."""
    assert say(user) == "v1"
    deployed = next_version(user, '"v1 {text}"', '"v2 {text}"')
    wait_until(lambda: say(user) == "v2", LONG_S, "the second version to answer")
    assert serving(user) == {deployed["version"]}


def test_with_a_second_gpu_no_call_fails(net, user):
    """Under load version 3 replaces 2: every call is answered, first by 2, in the end by 3."""
    net.start_miner(2)
    with Callers(user) as callers:
        wait_until(lambda: all(callers.heard), LONG_S, "the callers' first answers")
        deployed = next_version(user, '"v2 {text}"', '"v3 {text}"')
        wait_until(lambda: serving(user) == {deployed["version"]}, LONG_S, "the flip")
        after = [len(heard) for heard in callers.heard]
        wait_until(
            lambda: all(len(h) > n + 2 for h, n in zip(callers.heard, after, strict=True)),
            LONG_S,
            "answers after it",
        )
    assert callers.failed == []
    for heard in callers.heard:
        assert heard[0] == "v2"
        assert heard[-1] == "v3"
        assert set(heard) == {"v2", "v3"}


def test_a_rollback_brings_the_version_before_back(net, user):
    """`chutes rollback` deploys version 2 again, and it answers."""
    user.chutes("rollback", "echo", "--yes")
    wait_until(lambda: say(user) == "v2", LONG_S, "the version before")
    wait_until(lambda: len(serving(user)) == 1, LONG_S, "the end of the other")
    versions = user.get("/chutes/versions/echo")["items"]
    assert sum(one["current"] for one in versions) == 1


def test_a_version_that_does_not_start_takes_nothing_from_the_one_that_works(net, user):
    """Code that fails at its import is told to its owner, and the old version goes on answering."""
    old = serving(user)
    broken = next_version(user, "chute = Chute(", f"{FAILS}chute = Chute(")

    def told():
        shown = user.get("/chutes/echo")
        return shown["version"] == broken["version"] and "only here" in shown["reason"]

    wait_until(told, LONG_S, "the reason")
    began = net.validator.log.read_text().count("launch granted")
    wait_until(
        lambda: net.validator.log.read_text().count("launch granted") > began, LONG_S, "a next try"
    )
    assert serving(user) == old
    assert say(user) == "v2"
