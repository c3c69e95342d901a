"""kill -9 of the validator under calls: nothing answered is lost, nothing is charged twice."""

import threading
from collections import Counter

import httpx
import pytest

from scripts.localnet import miner_hotkey, wait_until
from tests.e2e.patience import PATIENCE_S
from tests.e2e.people import rich_user
from tests.e2e.signed import launches_of

pytestmark = pytest.mark.timeout(400)  # it builds an image where instances are containers
CALLERS = 4
BEFORE_KILL = 40
AFTER_RESTART = 20


class Callers:
    """Threads that call a chute until told to stop, and remember every complete answer."""

    def __init__(self, user):
        self.user = user
        self.answered = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self):
        with httpx.Client(headers=self.user.headers, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self.user.url + "/c/demo-echo/echo", json={"text": "x"})
                except httpx.HTTPError:
                    self._stop.wait(0.02)  # the validator is down: this call was not answered
                    continue
                if answer.status_code == 200 and answer.json() == "x":
                    with self._lock:
                        self.answered.append(answer.headers["X-Chutes-InvocationID"])


@pytest.fixture
def running(hosting_net):
    """One validator and one miner with the echo chute active."""
    validator = hosting_net.start_validator(1)
    hosting_net.register_miner(1)
    hosting_net.start_miner(1)
    user = rich_user(hosting_net, str(validator.ready["url"]))
    user.deploy("echo")
    user.chutes("warmup", "echo")
    return hosting_net, validator, user


def active_launch(user, validator):
    """Return the id of the active launch, or None."""
    launches = launches_of(miner_hotkey(1), user.url, str(validator.ready["hotkey"]))
    return next((launch.launch_id for launch in launches if launch.state == "active"), None)


def test_a_killed_validator_loses_no_answered_call_and_finds_its_instances_again(running):
    """Every complete answer is charged exactly once, and the same instance serves afterwards."""
    net, validator, user = running
    launch = active_launch(user, validator)
    assert launch is not None
    with Callers(user) as callers:
        wait_until(
            lambda: len(callers.answered) >= BEFORE_KILL, PATIENCE_S, "calls before the kill"
        )
        validator.kill()
        before = len(callers.answered)
        port = int(user.url.rsplit(":", 1)[1])
        validator = net.start_validator(1, port=port)
        wait_until(
            lambda: len(callers.answered) >= before + AFTER_RESTART,
            PATIENCE_S,
            "calls after the restart",
        )
    assert active_launch(user, validator) == launch

    made = set(callers.answered)
    wait_until(
        lambda: made <= {i for i, _ in user.charges()}, PATIENCE_S, "all calls to be settled"
    )
    charges = Counter(invocation for invocation, _ in user.charges())
    assert len(made) == len(callers.answered)
    assert {invocation: charges[invocation] for invocation in made} == dict.fromkeys(made, 1)
    assert max(charges.values()) == 1
    paid = sum(rao for _, rao in user.charges())
    assert user.balance_rao() == 1_000_000_000 - paid
