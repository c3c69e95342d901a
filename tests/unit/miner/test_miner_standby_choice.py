"""What is held ready: the newest launches' images, on idle GPUs, and nothing else."""

from pathlib import Path

import pytest

from chutes_core.miner.runtime.base import InstanceSpec, PreparedImage
from chutes_core.miner.standby import REMEMBERED_S, StandBys
from chutes_core.wire.system import NO_IMAGE_SHA256


class Runtime:
    """Remembers what was asked of it; ``failing`` images do not come up."""

    def __init__(self):
        self.wanted, self.failing = (), set()

    async def stand_by(self, wanted):
        self.wanted = tuple(wanted)
        return tuple(one for one in wanted if one.image.image_id in self.failing)

    @property
    def images(self):
        return [one.image.image_id for one in self.wanted]


class Clock:
    def __init__(self):
        self.now_us = 0

    def monotonic_us(self):
        return self.now_us


class World:
    def __init__(self, most=2, idle=2, **facts):
        self.runtime, self.clock, self.idle = Runtime(), Clock(), idle
        self.stand_bys = StandBys(
            self.runtime,
            most=most,
            graval_python="python",
            idle=lambda: self.idle,
            clock=self.clock,
            **facts,
        )

    def launched(self, image, sha256="", **facts):
        prepared = PreparedImage(image, sha256 or f"sha of {image}")
        self.stand_bys.note(InstanceSpec("launch", prepared, **facts))

    async def held(self):
        await self.stand_bys.keep()
        return self.runtime.images


async def test_the_newest_launches_stand_by():
    """The last images come first, each once, as many as are allowed."""
    world = World(most=2, idle=8)
    for image in ("a", "b", "c", "b"):
        world.launched(image)
    assert await world.held() == ["b", "c"]


@pytest.mark.parametrize(
    ("idle", "held"), [(0, []), (1, ["one"]), (2, ["two"]), (3, ["two", "one"])]
)
async def test_never_more_than_idle_gpus_would_hold(idle, held):
    """Each takes the part of its GPUs; what does not fit makes room for what does."""
    world = World(most=8, idle=idle)
    world.launched("one")
    world.launched("two", gpu_count=2)
    assert await world.held() == held


async def test_the_system_chute_and_old_launches_do_not_stand_by():
    """What has no image is always ready; what was launched over an hour ago is forgotten."""
    world = World()
    world.launched("system", sha256=NO_IMAGE_SHA256)
    world.launched("old")
    assert await world.held() == ["old"]
    world.clock.now_us = REMEMBERED_S * 1_000_000 + 1
    assert await world.held() == []


async def test_what_failed_is_left_alone_until_its_next_launch():
    """No loop of failing starts: only another launch brings it back."""
    world = World()
    world.runtime.failing = {"bad"}
    world.launched("bad")
    assert await world.held() == ["bad"]
    assert await world.held() == []
    world.launched("bad")
    assert await world.held() == ["bad"]


async def test_after_the_end_nothing_stands_by():
    """A miner that drains ends them, and none comes again."""
    world = World()
    world.launched("a")
    await world.held()
    await world.stand_bys.end()
    assert world.runtime.images == []
    assert await world.held() == []


async def test_a_device_is_told_from_a_stand_in():
    """An image that ran on a device stands by for devices."""
    world = World()
    world.launched("real", device_uuids=("GPU-1",))
    world.launched("declared")
    await world.held()
    assert [one.declared for one in world.runtime.wanted] == [True, False]


@pytest.mark.parametrize(("binds", "held"), [(True, Path("/models")), (False, None)])
async def test_a_container_stands_by_with_the_models_of_its_launch(binds, held):
    """Where a folder cannot be mounted later it is mounted from the start."""
    world = World(binds_cache=binds)
    world.launched("a", cache=Path("/models"))
    await world.held()
    assert [one.cache for one in world.runtime.wanted] == [held]


async def test_the_folders_of_stand_bys_are_told_and_can_be_shunned():
    """A folder counts from before its stand-by comes up until after it is gone."""
    world = World(binds_cache=True)
    told = []
    stand_by = world.runtime.stand_by

    async def watched(wanted):
        told.append(dict(world.stand_bys.folders()))
        return await stand_by(wanted)

    world.runtime.stand_by = watched
    world.launched("a", cache=Path("/models"), gpu_count=2)
    await world.held()
    assert world.stand_bys.folders() == {Path("/models"): 2}
    world.stand_bys.shun(Path("/models"))
    await world.held()
    assert told == [{Path("/models"): 2}] * 2
    assert world.stand_bys.folders() == {}


async def test_a_stand_by_that_failed_has_no_folder():
    """What did not come up, or not stay, uses nothing."""
    world = World(binds_cache=True)
    world.runtime.failing = {"bad"}
    world.launched("bad", cache=Path("/models"))
    await world.held()
    assert world.stand_bys.folders() == {}
