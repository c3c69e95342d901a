"""A chute that tries to break out in every way of tests/docker/chutes/prisoner.py, again and again.

    python tests/docker/siege.py [--seconds 3600]

Starts a network of its own on the engine that DOCKER_HOST names. After each round nothing may have
been reached, the instance must answer, and at the end the operator must have seen it: the log's
events and the status's counts. The short version of this is the last test of test_escapes.py.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from chutes_core.engine.connect import connect  # noqa: E402
from chutes_core.engine.networks import ensure_networks  # noqa: E402
from scripts.localnet import Localnet, miner_hotkey, wait_until  # noqa: E402
from scripts.runtimes import ensure_base_image  # noqa: E402
from tests.docker.conftest import SMALL  # noqa: E402
from tests.e2e.operators import status_of  # noqa: E402
from tests.e2e.patience import CALL_S, PATIENCE_S  # noqa: E402
from tests.e2e.people import rich_user  # noqa: E402

FOLDER = Path(__file__).parent / "chutes"


class Siege:
    """The besieger's chute, hot, and what came of its tries."""

    def __init__(self, net, user):
        self.net, self.user = net, user
        self.rounds = 0

    def call(self, cord, timeout=CALL_S, **body):
        url = f"{self.user.url}/c/{self.user.username}-prisoner/{cord}"
        return httpx.post(url, json=body, headers=self.user.headers, timeout=timeout)

    def tried(self):
        """What the operators of all miners see, together."""
        found = Counter()
        for number in self.net.miners:
            found.update(status_of(self.net, number, SMALL)["walls_tried"])
        return dict(found)

    def events(self):
        """How often the miners' logs tell of a try."""
        logs = [miner.log.read_text() for miner in self.net.miners.values()]
        return sum(log.count("an instance tried what it may not do") for log in logs)

    def gateways(self):
        """The host's own addresses on the miners' bridges."""
        client = connect(None)
        try:
            owners = [miner_hotkey(number).ss58_address for number in self.net.miners]
            nets = [ensure_networks(client, owner) for owner in owners]
            return [one.gateway for both in nets for one in (both.inside, both.outside)]
        finally:
            client.close()

    def round(self):
        """Try everything once; raises where something gave way."""
        relays = [int(miner.ready["relay_port"]) for miner in self.net.miners.values()]
        targets = [f"{host}:{port}" for host in self.gateways() for port in (22, *relays)]
        reached = self.call("dial", targets=targets, timeout_s=0.5).json()
        assert set(reached) == set(targets)
        assert "open" not in reached.values(), reached
        places = ["/", "/usr", "/etc", "/proc/sys/kernel", "/sys/fs/cgroup", "/dev"]
        written = self.call("write", paths=places).json()
        assert "written" not in written.values(), written
        said = self.call("privileges").json()
        assert (said["uid"], said["no_new_privileges"], said["seccomp"]) == (10001, "1", "2")
        assert len(said["refused"]) == 5, said
        who, refused = self.call("rooted").json()
        assert who.split() == ["10001"] * 3, who
        assert "PermissionError" in refused, refused
        assert 0 < self.call("fork", most=300).json() < int(SMALL["INSTANCE_PIDS"])
        self.rounds += 1

    def seen(self):
        """Tell whether the operator sees both kinds of tries that the kernel counts."""
        tried = self.tried()
        return tried.get("to_host", 0) > 0 and tried.get("processes", 0) > 0


def besiege(net, username):
    """Deploy the prisoner as a user of its own, and return the siege of it."""
    user = rich_user(net, str(net.validator.ready["url"]), username)
    own = net.folder / username
    own.mkdir()
    text = (FOLDER / "prisoner.py").read_text()
    text = text.replace('username="demo"', f'username="{username}"')
    (own / "prisoner.py").write_text(text)
    user.deploy("prisoner", folder=own)
    user.chutes("warmup", "prisoner")
    return Siege(net, user)


def main():
    """Besiege for as long as was asked for, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    options = parser.parse_args()
    ensure_base_image()
    folder = Path(tempfile.mkdtemp(prefix="siege-"))
    with Localnet(folder, block_seconds=0.5, tempo=40, runtime="docker") as net:
        net.validator = net.start_validator(1)
        net.register_miner(1)
        net.miners = {1: net.start_miner(1, extra=SMALL)}
        siege = besiege(net, "besieger")
        ends = time.monotonic() + options.seconds
        while time.monotonic() < ends:
            siege.round()
        wait_until(siege.seen, PATIENCE_S, "the operator to see it")
        found = {"rounds": siege.rounds, "events": siege.events(), "tried": siege.tried()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
