"""Stand-bys of the process runtime, with real processes: held, handed over, ended, left behind."""

import asyncio
import os
import time

import pytest

from chutes_core.miner.runtime.base import ImageBundle, InstanceSpec, PreparedImage, StandBy
from chutes_core.miner.runtime.process import ProcessRuntime

LAUNCH = "11111111-2222-3333-4444-555555555555"
WAIT_S = 60.0
SCRIPT = """
import json, os, signal, sys
print("up", flush=True)
if os.environ.get("CHUTES_RUNNER_STAND_BY"):
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    os.environ.update(json.loads(line))
ready = {"port": os.getpid(), "public_key": os.environ["CHUTES_RUNNER_LAUNCH_ID"]}
with open(os.environ["CHUTES_RUNNER_READY_FILE"] + ".partial", "w") as file:
    json.dump(ready, file)
os.rename(file.name, os.environ["CHUTES_RUNNER_READY_FILE"])
print("home", os.environ["HOME"], os.getcwd(), flush=True)
print("models", os.environ.get("HF_HOME"), os.environ.get("CHUTES_CACHE_DIR"), flush=True)
signal.pause()
"""


async def until(condition):
    """Other processes give no event to wait for: look until it is so."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


class World:
    """A runtime with one prepared image; ``again`` is the one of the miner's next process."""

    def __init__(self, tmp_path, image):
        self.folder, self.image = tmp_path / "data", image
        self.runtime = self.again()

    def again(self):
        return ProcessRuntime(self.folder, environ=dict(os.environ), command=("-c", SCRIPT))

    def stand_by(self, **changes):
        facts = {"gpu_count": 1, "allow_egress": False, "declared": True, "graval_python": "p"}
        return StandBy(image=self.image, **{**facts, **changes})

    def spec(self, **changes):
        env = {"CHUTES_RUNNER_LAUNCH_ID": LAUNCH}
        return InstanceSpec(LAUNCH, self.image, env, **changes)

    def folders(self):
        return {path.name for path in (self.folder / "instances").iterdir()}

    async def held(self, *stand_bys):
        """Hold these, and wait until they wait on their line."""
        assert await self.runtime.stand_by(stand_bys or (self.stand_by(),)) == ()
        for place in self.runtime._pool.held:
            await until(lambda place=place: "up" in self.runtime.log_tail(place, 100))
        return set(self.runtime._pool.held)

    async def started(self, **changes):
        await self.runtime.start(self.spec(**changes))
        return await self.runtime.wait_ready(LAUNCH, WAIT_S)


@pytest.fixture
async def world(tmp_path, make_bundle):
    first = ProcessRuntime(tmp_path / "data", environ=dict(os.environ), command=("-c", SCRIPT))
    path = tmp_path / "a.zip"
    path.write_bytes(make_bundle("FROM x\n"))
    image = await first.prepare(ImageBundle("i1", "bob/app:1", "a" * 64, path))
    world = World(tmp_path, image)
    yield world
    await world.runtime.stand_by(())
    for name in world.runtime.instances():
        await world.runtime.stop(name, 0.1)
        world.runtime.forget(name)


async def test_a_launch_takes_what_stands_by(world):
    """The waiting process becomes the launch's instance: its place, its log, its home, its end."""
    (place,) = await world.held()
    pid = world.runtime._pid(place)
    assert world.runtime.instances() == ()  # nobody's orphan
    ready = await world.started()
    assert ready.public_key == LAUNCH
    assert world.runtime._pid(LAUNCH) == pid
    assert world.runtime.instances() == (LAUNCH,)
    assert world.runtime._pool.held == {}
    home = str(world.folder / "instances" / LAUNCH / "home")
    await until(lambda: f"home {home} {home}" in world.runtime.log_tail(LAUNCH, 1000))
    await world.runtime.stop(LAUNCH, WAIT_S)
    assert world.runtime.ended(LAUNCH) is not None
    world.runtime.forget(LAUNCH)
    assert world.folders() == set()


@pytest.mark.parametrize(
    "other", [{"gpu_count": 2}, {"allow_egress": True}, {"device_uuids": ("GPU-1",)}]
)
async def test_what_does_not_fit_stays(world, other):
    """A launch with more GPUs, with a way out, or with a device starts as ever."""
    held = await world.held()
    pid = world.runtime._pid(*held)
    await world.started(**other)
    assert set(world.runtime._pool.held) == held
    assert world.runtime._pid(LAUNCH) != pid


async def test_another_image_does_not_fit(world):
    """The image's digest decides, and where an engine has it, that one's name for it too."""
    await world.held()
    other = InstanceSpec(LAUNCH, PreparedImage("i1", "b" * 64))
    assert not world.stand_by().fits(other)
    image = world.stand_by().image
    claimed = PreparedImage(image.image_id, image.sha256, "sha256:" + "e" * 64)
    assert not world.stand_by().fits(InstanceSpec(LAUNCH, claimed))


async def test_what_is_wanted_no_more_is_ended(world):
    """Holding others, or none, ends what is too much and leaves no trace of it."""
    first = await world.held()
    both = await world.held(world.stand_by(), world.stand_by(gpu_count=2))
    assert first < both
    assert await world.runtime.stand_by((world.stand_by(gpu_count=2),)) == ()
    assert world.folders() == both - first
    assert await world.runtime.stand_by(()) == ()
    assert world.folders() == set()


async def test_one_that_has_died_is_told_and_not_taken(world):
    """A launch finds no corpse, and whoever decides hears that it did not stay."""
    (place,) = await world.held()
    pid = world.runtime._pid(place)
    os.killpg(pid, 9)
    await until(lambda: world.runtime.ended(place) is not None)
    assert (await world.started()).public_key == LAUNCH
    assert await world.runtime.stand_by((world.stand_by(),)) == (world.stand_by(),)
    assert world.folders() == {LAUNCH}


@pytest.mark.parametrize("late", [False, True])
async def test_one_that_cannot_be_handed_over_is_ended_and_the_launch_starts(
    world, monkeypatch, late
):
    """A line that cannot be sent, before or after the renaming, costs the stand-by alone."""
    (place,) = await world.held()
    pid, hand_over = world.runtime._pid(place), world.runtime.hand_over

    async def failing(*arguments):
        if late:
            await hand_over(*arguments)
        raise BrokenPipeError

    monkeypatch.setattr(world.runtime, "hand_over", failing)
    assert (await world.started()).public_key == LAUNCH
    assert world.runtime._pid(LAUNCH) != pid
    assert world.folders() == {LAUNCH}
    assert world.runtime._pool.held == {}


async def test_the_next_process_of_a_killed_miner_finds_orphans_that_have_ended(world):
    """What stood by ends with the miner's end of its stdin, and is removed like any orphan."""
    (place,) = await world.held()
    later = world.again()
    assert later.instances() == (place,)
    world.runtime._children[place].stdin.close()  # as the kernel does for a killed process
    await until(lambda: later.ended(place) is not None)
    await later.stop(place, 0.1)
    later.forget(place)
    assert world.folders() == set()


async def test_any_stand_by_can_be_told_its_chutes_model_cache(world):
    """A process is led there by a variable: what stands by for one chute serves another."""
    (place,) = await world.held()
    pid = world.runtime._pid(place)
    await world.started(cache=world.folder / "models")
    assert world.runtime._pid(LAUNCH) == pid
    said = f"models {world.folder}/models/huggingface {world.folder}/models"
    await until(lambda: said in world.runtime.log_tail(LAUNCH, 1000))


async def test_a_container_keeps_the_model_cache_it_began_with(world):
    """What was made with one chute's folder fits no launch of another, nor one without."""
    own, other = world.folder / "own", world.folder / "other"
    stand_by = world.stand_by(cache=own)
    assert stand_by.fits(world.spec(cache=own))
    assert not stand_by.fits(world.spec(cache=other))
    assert not stand_by.fits(world.spec())
