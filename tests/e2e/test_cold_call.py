"""The caller of a chute that has gone is answered by what stood by, and nothing is left of it."""

import json
import os
from pathlib import Path

import httpx
import pytest

from chutes_core.engine.run import STAND_BY_PREFIX
from scripts.localnet import wait_until
from tests.e2e.people import rich_user

WAIT_S = 180
QUIET = {  # a GPU in a challenge serves nobody, and a caller of a busy machine waits long
    "LIGHT_SECONDS": "0",
    "ROUND_ONE_IN": "0",
    "COLD_WAIT_S": str(WAIT_S),
}
GOES_SOON = ("    image=image,\n", "    image=image,\n    shutdown_after_seconds=1,\n")
SAYS_WHO = ("    return text", '    import os\n\n    return f"{text} {os.getppid()}"')


class Instances:
    """What a miner's process runtime has in its folder."""

    def __init__(self, net):
        self.folder = net.folder / "miner-1" / "data" / "instances"

    def standing_by(self):
        """Return the pids of the shims of what stands by, where each has begun."""
        return {pid for name, pid in self._pids() if name.startswith(STAND_BY_PREFIX) and pid}

    def launched(self):
        """Return the names of the others' folders."""
        return {name for name, _ in self._pids() if not name.startswith(STAND_BY_PREFIX)}

    def processes(self):
        """Return every process that works in the folder: shims, runners, provers."""
        return {int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self._works(entry)}

    def _works(self, entry):
        try:
            return os.readlink(entry / "cwd").startswith(str(self.folder))
        except OSError:  # it has ended, or is another user's
            return False

    def _pids(self):
        found = []
        for place in self.folder.iterdir():
            try:
                found.append((place.name, json.loads((place / "pid.json").read_text())["pid"]))
            except OSError:
                found.append((place.name, None))
        return found


@pytest.mark.timeout(600)
def test_a_cold_call_is_answered_by_what_stood_by(lone_net):
    """The answer comes out of the waiting process; another takes its place; the miner ends both."""
    validator = lone_net.start_validator(1, extra=QUIET)
    lone_net.register_miner(1)
    miner = lone_net.start_miner(1, extra={"STAND_BYS": "1"})
    here = Instances(lone_net)
    user = rich_user(lone_net, str(validator.ready["url"]))
    user.deploy_as_own("echo", changes=[GOES_SOON, SAYS_WHO])

    def answered():
        url = user.url + "/c/demo-echo/echo"
        answer = httpx.post(url, json={"text": "x"}, headers=user.headers, timeout=WAIT_S)
        return int(answer.json().split()[1]) if answer.status_code == 200 else None

    def rested():
        return here.standing_by() and not here.launched()

    wait_until(lambda: answered() is not None, WAIT_S, "the first answer")
    waited = set()
    for _ in range(2):  # the one that takes its place serves the next one
        wait_until(rested, WAIT_S, "the instance to go, and one to stand by")
        (stood_by,) = here.standing_by()
        assert stood_by not in waited
        assert answered() == stood_by
        waited.add(stood_by)
    wait_until(rested, WAIT_S, "the last to go, and one to stand by")
    assert here.processes() >= here.standing_by()
    assert miner.terminate(WAIT_S) == 0
    assert list(here.folder.iterdir()) == []
    assert here.processes() == set()
