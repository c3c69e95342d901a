"""Stand-bys as containers on a real engine: held, handed over, left behind; pruned networks."""

import asyncio
import time
import uuid
from types import SimpleNamespace

import pytest

from chutes_core.base.errors import ChutesError
from chutes_core.engine.connect import connect
from chutes_core.engine.networks import ensure_networks, remove_networks
from chutes_core.engine.run import PYTHON_LABEL
from chutes_core.miner.runtime import walls as walls_room
from chutes_core.miner.runtime.base import InstanceSpec, PreparedImage, StandBy
from chutes_core.miner.runtime.docker import DockerRuntime, InstanceLimits
from chutes_core.miner.runtime.walls import Walls
from scripts.runtimes import BASE_IMAGE, ensure_base_image

MIB = 1 << 20
WAIT_S = 180.0
LIMITS = InstanceLimits(64 * MIB, 1.0, 8 * MIB, 8 * MIB, 32)
# stands in for the interpreter: waits for a line where it is told to, then says that it listens
RUNNER = """#!/bin/sh
if [ -n "$CHUTES_RUNNER_STAND_BY" ]; then read -r line || exit 0; fi
echo '{"port": 7, "public_key": "ab"}'
echo "told $line" >&2
while :; do sleep 1; done
"""


class Place:
    """An owner of the test's own on the engine, and runtimes of it."""

    def __init__(self, script=RUNNER):
        self.client, self.owner = connect(None), f"test-{uuid.uuid4()}"
        self.walls = SimpleNamespace(
            networks=ensure_networks(self.client, self.owner),
            mend=lambda: False,
            keep=lambda: None,
        )
        self.digest = self._image(script)
        self.image = PreparedImage("i1", "a" * 64, self.digest)
        self.runtime = self.again()

    def again(self, walls=None):
        """Return a runtime as the miner's next process makes it."""
        return DockerRuntime(self.client, self.owner, walls=walls or self.walls, limits=LIMITS)

    def stand_by(self):
        return StandBy(self.image, 1, allow_egress=False, declared=True, graval_python="")

    def spec(self, **changes):
        env = {"CHUTES_RUNNER_LAUNCH_ID": "x"}
        return InstanceSpec(str(uuid.uuid4()), self.image, env, **changes)

    def names(self):
        found = self.client.api.containers(
            all=True, filters={"label": f"chutes.miner={self.owner}"}
        )
        return {name for one in found for name in one["Names"]}

    async def until(self, condition, runtime=None):
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
            await (runtime or self.runtime).refresh()

    def close(self):
        for name in self.names():
            self.client.api.remove_container(name.lstrip("/"), force=True, v=True)
        remove_networks(self.client, self.owner)
        self.client.api.remove_image(self.digest, force=True)
        self.client.close()

    def _image(self, script):
        script = script.replace("'", "'\\''")
        made = self.client.api.create_container(
            BASE_IMAGE, ["sh", "-c", f"printf %s '{script}' >/runner; chmod 755 /runner"]
        )["Id"]
        self.client.api.start(made)
        assert self.client.api.wait(made)["StatusCode"] == 0
        image = self.client.api.commit(made, changes=[f"LABEL {PYTHON_LABEL}=/runner"])
        self.client.api.remove_container(made, v=True)
        return str(image["Id"])


@pytest.fixture
def place():
    ensure_base_image()
    place = Place()
    yield place
    place.close()


async def test_a_launch_takes_a_container_that_stands_by(place):
    """No way out and nobody's until then; afterwards it is the launch's, to every later process."""
    assert await place.runtime.stand_by((place.stand_by(),)) == ()
    await place.runtime.refresh()
    assert place.runtime.instances() == ()
    (held,) = place.runtime._pool.held
    seen = place.runtime._seen[held]
    assert set(seen.networks) == {place.walls.networks.inside.name}
    spec = place.spec()
    await place.runtime.start(spec)
    ready = await place.runtime.wait_ready(spec.launch_id, WAIT_S)
    assert (ready.port, ready.public_key) == (7, "ab")
    now = place.runtime._seen[spec.launch_id]
    assert now.container_id == seen.container_id
    assert len(now.networks) == 2
    await place.until(lambda: "told {" in place.runtime.log_tail(spec.launch_id, 2000))
    await place.runtime.refresh()
    assert place.runtime.instances() == (spec.launch_id,)
    await place.runtime.settle(spec.launch_id)
    later = place.again()
    await later.refresh()
    assert later.instances() == (spec.launch_id,)
    assert set(later._seen[spec.launch_id].networks) == {place.walls.networks.inside.name}
    await later.stop(spec.launch_id, 0)
    assert place.names() == set()


async def test_what_stands_by_is_ended_when_it_is_not_wanted_and_after_a_killed_miner(place):
    """Dropped by its holder it is removed; with its holder gone it ends, an orphan to the next."""
    await place.runtime.stand_by((place.stand_by(),))
    await place.runtime.stand_by(())
    assert place.names() == set()
    await place.runtime.stand_by((place.stand_by(),))
    (held,) = place.runtime._pool.held
    place.runtime._places._lines[held][1].close()  # as the kernel does for a killed process
    later = place.again()
    await later.refresh()
    assert later.instances() == (held,)
    await place.until(lambda: later.ended(held) is not None, later)
    await later.stop(held, 0)
    assert place.names() == set()


async def test_a_container_with_devices_does_not_stand_by(place):
    """It would keep its devices while they serve somebody else."""
    real = StandBy(place.image, 1, allow_egress=False, declared=False, graval_python="")
    assert await place.runtime.stand_by((real,)) == ()
    assert place.names() == set()


async def test_networks_that_were_pruned_are_made_again_at_the_next_launch(place, monkeypatch):
    """`docker network prune` under an idle miner costs no restart, and the walls are tried anew."""
    tried = []
    monkeypatch.setattr(Walls, "_try", lambda self, networks: tried.append(networks))
    firewall = SimpleNamespace(ensure=lambda rules: False, remove=lambda rules: None)
    walls = Walls(place.client, place.owner, dns=(), firewall=firewall)
    walls.raise_up(is_devnet=False)
    runtime = place.again(walls)
    assert remove_networks(place.client, place.owner)
    spec = place.spec()
    await runtime.start(spec)
    assert (await runtime.wait_ready(spec.launch_id, WAIT_S)).port == 7
    assert len(tried) == 2
    assert walls.stand
    assert not walls.mend()
    await runtime.stop(spec.launch_id, 0)


async def test_a_launch_fails_where_the_walls_do_not_stand_again(place, monkeypatch):
    """Off a devnet nothing runs behind walls that leak, after a prune either."""
    firewall = SimpleNamespace(ensure=lambda rules: False, remove=lambda rules: None)
    leaks = []
    probe = lambda network: walls_room.Tried(tuple(leaks))  # noqa: E731 - one line says it
    walls = Walls(place.client, place.owner, dns=(), firewall=firewall, probe=probe)
    walls.raise_up(is_devnet=False)
    assert remove_networks(place.client, place.owner)
    leaks.append("the host")
    with pytest.raises(ChutesError) as caught:
        await place.again(walls).start(place.spec())
    assert caught.value.code == "walls_leak"
    assert place.names() == set()
