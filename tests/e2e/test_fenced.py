"""A miner cut off from its validator: what runs there ends, and no answer comes from it later."""

import os
import signal

import httpx

from scripts.localnet import miner_hotkey, wait_until
from tests.e2e.operators import status_of
from tests.e2e.patience import CALL_S, PATIENCE_S
from tests.e2e.people import rich_user
from tests.e2e.signed import launches_of

LEASES = {"LEASE_RENEWAL_S": "15", "RENEW_SECONDS": "3"}


def test_an_instance_without_renewals_ends_and_is_never_asked_again(lone_net):
    """The validator stands still for longer than the lease; awake, it answers from a new launch."""
    validator = lone_net.start_validator(1, extra=LEASES)
    lone_net.register_miner(1)
    lone_net.start_miner(1)
    user = rich_user(lone_net, str(validator.ready["url"]))
    user.deploy("echo")
    user.chutes("warmup", "echo")

    def launches(state):
        listed = launches_of(miner_hotkey(1), user.url, str(validator.ready["hotkey"]))
        return {one.launch_id for one in listed if one.state == state}

    def status():
        return status_of(lone_net, 1)

    def answer():
        url = user.url + "/c/demo-echo/echo"
        return httpx.post(url, json={"text": "x"}, headers=user.headers, timeout=CALL_S)

    def stopped():
        said = status()
        ended = {end["launch_id"] for end in said["ended_lately"]}
        return fenced <= ended and fenced.isdisjoint(one["launch_id"] for one in said["launches"])

    wait_until(lambda: answer().status_code == 200, PATIENCE_S, "the chute to answer")
    fenced = launches("active")
    assert len(fenced) == 1
    os.kill(validator.popen.pid, signal.SIGSTOP)
    try:
        wait_until(stopped, PATIENCE_S, "the instance to stop itself without its lease")
    finally:
        os.kill(validator.popen.pid, signal.SIGCONT)
    answers = []

    def answered():
        answers.append(answer())
        return answers[-1].status_code == 200

    wait_until(answered, PATIENCE_S, "the chute to answer again")
    assert all(one.status_code == 200 or one.json()["code"] for one in answers)
    assert launches("active").isdisjoint(fenced)
    assert fenced <= launches("gone")
