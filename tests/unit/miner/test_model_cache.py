"""The model cache on a real disk: whose folders there are, what goes, and what never does."""

import asyncio
import json
import os

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict
from chutes_core.miner.cache import trees, upkeep
from chutes_core.miner.cache.folders import Folders, Key
from chutes_core.miner.cache.hidden import hidden_bytes
from chutes_core.miner.cache.model_cache import ModelCache
from chutes_core.miner.cache.upkeep import Bounds
from chutes_core.miner.metrics import render
from chutes_core.miner.operate import _rest
from chutes_core.miner.status import NodeStatus, cache_report
from chutes_core.wire.control import HostFacts

UNIT = 1 << 16
A, B = Key("va", "chute-1"), Key("va", "chute-2")


class World:
    """One life of a cache after another on the same disk."""

    def __init__(self, place, *, most=40 * UNIT, part=20 * UNIT):
        self.place, self.clock = place / "model-cache", ManualClock(1_000)
        self.bounds = Bounds(most, part, kept_free_bytes=100)
        self.in_use, self.overran, self.free, self.hidden = {}, [], 10_000, 0
        self.standing, self.shunned = {}, []
        self.folders = None
        self.live()

    def live(self):
        """Begin anew, as a process does after kill -9."""
        if self.folders is not None:
            self.folders.close()
        self.folders = Folders(self.place)
        self.cache = ModelCache(
            self.folders,
            self.bounds,
            in_use=lambda: self.in_use,
            overran=lambda key, said: self.overran.append((key, said)),
            clock=self.clock,
            hidden=lambda files: self.hidden,
            free=lambda path: self.free,
            standing=lambda: self.standing,
            shun=self.shunned.append,
        )

    async def lend(self, key, gpus=1, units=0):
        """Launch an instance that writes so much."""
        self.in_use[key] = self.in_use.get(key, 0) + gpus
        files = await self.cache.lend(*key, gpus)
        if units and files is not None:
            write(files / f"model-{units}", units)
        return files

    async def end(self, key):
        """End a chute's instances."""
        self.in_use.pop(key)
        self.clock.advance(10)
        await self.cache.look()

    def sizes(self):
        return {one.key: one.used_bytes // UNIT for one in self.cache.facts().folders}

    def left(self):
        return sorted(path.name for path in self.place.iterdir() if path.name != "lock")


def write(path, units):
    path.write_bytes(b"m" * (units * UNIT))


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.folders.close()


async def test_a_chute_finds_its_models_at_its_next_launch(world):
    """The same folder comes back, after a restart too; that launch counts as warm."""
    files = await world.lend(A, units=1)
    await world.end(A)
    assert world.cache.warm() == {A}
    assert await world.lend(A) == files
    world.live()
    await world.cache.begin()
    assert world.cache.warm() == {A}
    assert await world.cache.lend(*A, 1) == files
    assert (files / "model-1").stat().st_size == UNIT
    assert world.cache.facts().launches == {"warm": 1}


async def test_no_two_chutes_and_no_two_validators_share_a_folder(world):
    """Another chute, and the same chute id at another validator, get folders of their own."""
    keys = [A, B, Key("vb", "chute-1"), Key("../../etc", "../x")]
    folders = [await world.lend(key) for key in keys]
    assert len(set(folders)) == len(keys)
    for folder in folders:
        assert folder.parent.parent == world.place
        assert folder.stat().st_mode & 0o777 == 0o700
    assert world.place.stat().st_mode & 0o777 == 0o700


async def test_the_longest_unused_goes_first_and_nothing_in_use(world):
    """Over the bound the oldest folder goes, then the next; one in use stays whatever its age."""
    keys = [Key("va", f"chute-{n}") for n in range(4)]
    await world.lend(keys[0], units=16)  # stays in use, and is the oldest
    for key in keys[1:3]:
        await world.lend(key, units=12)
        await world.end(key)
    assert world.sizes() == {keys[0]: 16, keys[1]: 12, keys[2]: 12}
    await world.lend(keys[3], units=16)
    await world.cache.look()
    assert world.sizes() == {keys[0]: 16, keys[3]: 16}
    assert world.cache.facts().evicted == {"room": 2}
    assert len(world.left()) == 2


async def test_what_overruns_its_part_is_ended_and_loses_its_folder(world):
    """Its instances are named once with a reason; the next launch begins with an empty folder."""
    files = await world.lend(A, units=21)
    await world.cache.look()
    await world.cache.look()
    ((key, said),) = world.overran
    assert key == A
    assert "bytes of 1310720" in said
    assert await world.lend(A) is None  # beside the one that ends
    await world.end(A)
    assert not files.exists()
    assert world.cache.facts().evicted == {"over_bound": 1}
    again = await world.lend(A)
    assert list(again.iterdir()) == []
    await world.cache.look()
    assert len(world.overran) == 1


async def test_each_gpu_of_a_chute_adds_a_part(world):
    """Two GPUs may fill two parts; a launch on one of them alone then begins with nothing."""
    files = await world.lend(A, gpus=2, units=30)
    await world.cache.look()
    assert world.overran == []
    await world.end(A)
    again = await world.lend(A, gpus=1)
    assert again != files
    assert list(again.iterdir()) == []


async def test_a_full_disk_takes_what_nobody_uses(world):
    """With too little free, folders go before their time; those in use stay."""
    await world.lend(A, units=1)
    await world.lend(B, units=1)
    await world.end(B)
    world.free = 50
    await world.cache.look()
    assert world.sizes() == {A: 1}
    assert world.cache.facts().evicted == {"disk_short": 1}


async def test_what_stands_by_with_a_folder_uses_it(world):
    """Its image's code can write there: it is measured, keeps its folder, and is bounded by it."""
    files = await world.lend(A, units=1)
    world.standing = {files: 1}
    await world.end(A)
    world.free = 50
    await world.cache.look()
    assert world.sizes() == {A: 1}
    write(files / "more", 20)
    await world.cache.look()
    assert world.shunned == [files]
    assert [key for key, _ in world.overran] == [A]
    assert files.exists()
    world.standing = {}
    await world.cache.look()
    assert not files.exists()
    assert world.cache.facts().evicted == {"over_bound": 1}


async def test_a_launch_gets_no_folder_that_must_go_while_something_stands_by_with_it(world):
    """It goes without one; the folder goes once nothing has it mounted and the launch is over."""
    files = await world.lend(A, gpus=2, units=30)
    world.standing = {files: 2}
    await world.end(A)
    assert await world.lend(A) is None
    await world.cache.look()
    assert world.shunned == [files]
    world.standing = {}
    await world.cache.look()
    assert world.overran == []
    await world.end(A)
    assert not files.exists()


async def test_what_comes_to_stand_by_during_a_look_keeps_its_folder(world, monkeypatch):
    """Whether a folder is in use is seen again in the moment in which it would go."""
    files = [await world.lend(key, units=1) for key in (A, B)]
    world.in_use.clear()
    world.free = 50
    put_away = world.cache._put_away

    async def meanwhile(key, why):
        world.standing = {files[1]: 1}
        await put_away(key, why)

    monkeypatch.setattr(world.cache, "_put_away", meanwhile)
    await world.cache.look()
    assert world.sizes() == {B: 1}


async def test_files_without_a_name_count_once_the_disk_is_short(world):
    """A chute that hides what it writes is over its bound all the same."""
    await world.lend(A, units=1)
    world.hidden = 30 * UNIT
    await world.cache.look()
    assert world.overran == []
    world.free = 50
    await world.cache.look()
    assert [key for key, _ in world.overran] == [A]


async def test_without_a_bound_nothing_is_lent_and_what_lies_there_goes(world):
    """A cache that was switched off gives its disk back at the next look."""
    await world.lend(A, units=1)
    world.bounds = Bounds(0, 0, 100)
    world.live()
    world.in_use.clear()
    await world.cache.begin()
    assert await world.cache.lend(*A, 1) is None
    await world.cache.look()
    assert world.left() == []


async def test_the_number_of_folders_is_bounded(world, monkeypatch):
    """A validator that launches ever new chutes leaves no endless trail of empty folders."""
    monkeypatch.setattr(upkeep, "MAX_FOLDERS", 2)
    for n in range(4):
        await world.lend(Key("va", f"chute-{n}"))
        await world.end(Key("va", f"chute-{n}"))
    assert {key.chute_id for key in world.sizes()} == {"chute-2", "chute-3"}


async def test_a_launch_without_a_folder_is_only_slower(world, monkeypatch):
    """Where the disk refuses a folder the launch goes on without one."""
    monkeypatch.setattr(world.folders, "directory", world.place / "lock" / "no-folder")
    assert await world.lend(A) is None


async def test_a_folder_is_not_lent_while_it_goes(world, monkeypatch):
    """A launch in the middle of an eviction waits for its end, and gets a new folder."""
    files = await world.lend(A, units=1)
    await world.end(A)
    world.free = 50
    begun, go_on = asyncio.Event(), asyncio.Event()
    put_away = world.cache._put_away

    async def slowly(key, why):
        begun.set()
        await go_on.wait()
        await put_away(key, why)

    monkeypatch.setattr(world.cache, "_put_away", slowly)
    looking = asyncio.ensure_future(world.cache.look())
    await begun.wait()
    lending = asyncio.ensure_future(world.lend(A))
    await asyncio.sleep(0)
    assert not lending.done()
    go_on.set()
    again = await lending
    await looking
    assert again.is_dir()
    assert again != files


async def test_what_a_crash_leaves_goes_at_the_next_start(world):
    """Half-made, half-removed and damaged folders go; what is not the miner's stays."""
    files = await world.lend(A, units=1)
    damaged = await world.lend(B)
    (damaged.parent / "about.json").write_text("{")
    for name in (f".gone-{'a' * 24}", f".new-{'b' * 24}", "c" * 24, "d" * 24, "somebody-elses"):
        (world.place / name / "files").mkdir(parents=True)
    (world.place / ("d" * 24) / "about.json").write_text(json.dumps(A._asdict()))  # a second one
    world.live()
    await world.cache.begin()
    left = world.left()
    assert len(left) == 2
    assert "somebody-elses" in left
    (mine,) = set(left) - {"somebody-elses"}
    assert mine in {files.parent.name, "d" * 24}


async def test_a_folder_that_somebody_removed_is_made_anew(world):
    """`rm -rf` by hand under a running miner costs the models and nothing else."""
    files = await world.lend(A, units=1)
    await world.end(A)
    trees.remove(files.parent)
    world.free = 50
    await world.cache.look()
    world.free = 10_000
    assert (await world.lend(A)).is_dir()


def test_two_miners_do_not_share_a_cache(world):
    """The second is refused, and told what to set."""
    with pytest.raises(Conflict) as caught:
        Folders(world.place)
    assert caught.value.code == "cache_dir_in_use"
    assert "CHUTES_MINER_CACHE_DIR" in caught.value.hint


def test_no_link_leads_the_miner_out_of_a_folder(tmp_path):
    """Links are neither measured nor followed when a folder is removed."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    (outside / "deep").mkdir(parents=True)
    write(outside / "deep" / "precious", 2)
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "to-file").symlink_to(outside / "deep" / "precious")
    (folder / "files" / "to-folder").symlink_to(outside)
    (folder / "files" / "to-itself").symlink_to("to-itself")
    os.mkfifo(folder / "files" / "fifo")
    assert trees.measure(folder).used_bytes < UNIT
    assert trees.measure(folder / "files" / "to-folder").entries == 0
    trees.remove(folder)
    assert not folder.exists()
    assert (outside / "deep" / "precious").stat().st_size == 2 * UNIT


def test_a_file_with_two_names_counts_once(tmp_path):
    """Hard links are one file on the disk."""
    write(tmp_path / "one", 2)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert trees.measure(tmp_path).used_bytes == (tmp_path / "one").stat().st_blocks * 512


def test_names_of_one_file_are_counted_to_the_bound_too(tmp_path, monkeypatch):
    """A chute cannot make the walk endless with hard links, which take no room."""
    monkeypatch.setattr(trees, "MAX_FILES", 10)
    write(tmp_path / "one", 1)
    for n in range(30):
        (tmp_path / str(n)).hardlink_to(tmp_path / "one")
    size = trees.measure(tmp_path)
    assert size.entries == 11
    assert "more than 10 files" in size.excess
    assert size.used_bytes == (tmp_path / "one").stat().st_blocks * 512


def test_a_sparse_file_counts_what_it_takes(tmp_path):
    """A file that claims a terabyte and holds a page is no terabyte."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert trees.measure(tmp_path).used_bytes < UNIT


def test_a_tree_deeper_than_any_path_is_measured_to_its_bound_and_removed(tmp_path):
    """Neither the length of a path nor the number of open files ends the walk."""
    folder = tmp_path / "folder"
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("nested", dir_fd=here)
        below = os.open("nested", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert "deeper than 64" in trees.measure(folder).excess
    trees.remove(folder)
    assert not folder.exists()


def test_a_walk_ends_at_so_many_files(tmp_path, monkeypatch):
    """What holds more entries than the bound is counted no further."""
    monkeypatch.setattr(trees, "MAX_FILES", 10)
    for n in range(30):
        (tmp_path / str(n)).touch()
    size = trees.measure(tmp_path)
    assert size.entries == 11
    assert "more than 10 files" in size.excess


async def test_what_may_not_be_listed_goes_all_the_same(tmp_path):
    """A folder whose rights were taken away, and names that removal uses itself, hinder nothing."""
    folder = tmp_path / "folder"
    (folder / "closed" / "inner" / "leaf").mkdir(parents=True)
    for name in (".up-1", ".up-2"):
        (folder / name).mkdir()
    (folder / "closed" / "inner").chmod(0)
    (folder / "closed").chmod(0)
    trees.remove(folder)
    assert not folder.exists()


def test_no_names_of_a_chute_make_its_folder_stay(tmp_path, monkeypatch):
    """Whatever lies there, in whatever order, no name is the one that removal itself takes next."""
    folder = tmp_path / "folder"
    (folder / "z" / "inner").mkdir(parents=True)
    for dashes in range(251):
        (folder / f".up-1{'-' * dashes}"[:255]).mkdir()
    listdir = os.listdir
    monkeypatch.setattr(trees.os, "listdir", lambda place: sorted(listdir(place), reverse=True))
    trees.remove(folder)
    assert not folder.exists()


def test_nameless_files_are_found_through_the_processes_that_hold_them(tmp_path):
    """Open files and mappings without a name count once; other processes' files do not."""
    proc, files = tmp_path / "proc", tmp_path / "files"
    files.mkdir()
    for number, root in ((11, True), (12, False)):
        (proc / str(number) / "fd").mkdir(parents=True)
        inside = proc / str(number) / "root"
        inside.mkdir()
        if root:
            (inside / "cache").symlink_to(files)
        (proc / str(number) / "fd" / "3").symlink_to(f"/proc/self/fd/{hold(files, 2)}")
    (proc / "11" / "map_files").mkdir()
    (proc / "11" / "map_files" / "a-b").symlink_to((proc / "11" / "fd" / "3").readlink())
    (proc / "self").mkdir()
    assert 2 * UNIT <= hidden_bytes(files, "/cache", proc) < 3 * UNIT
    assert hidden_bytes(tmp_path / "missing", "/cache", proc) == 0


def hold(folder, units):
    """Return a descriptor of a file that has lost its name; the process's end closes it."""
    path = folder / "unlinked"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"x" * (units * UNIT))
    path.unlink()
    return descriptor


async def test_status_and_metrics_show_the_cache(world):
    """An operator sees whose models there are, how much of the bound they take, and what went."""
    await world.lend(A, units=1)
    await world.cache.look()
    host = HostFacts(
        cpus=1,
        architecture="x",
        memory_bytes=1,
        memory_free_bytes=1,
        disk_bytes=1,
        disk_free_bytes=1,
    )
    report = cache_report(world.cache.facts())
    status = NodeStatus.model_construct(
        **{name: () for name in ("launches", "pulls", "waiting", "validators", "ended_lately")},
        **{name: {} for name in ("walls_tried", "ended", "relay_refused", "loop_failures")},
        gpus=(),
        relay_carried=0,
        cache=report,
        host=host,
        version="1",
        protocol_min=1,
        protocol_max=1,
        runtime="docker",
        block=1,
        registered=True,
        incentive=1,
        draining=False,
        hourly_cost_usd_micros=0,
        users_pay_rao_per_hour=0,
    )
    lines = list(_rest(status))
    assert lines[0].startswith(f"  model cache: {report.used_bytes} of {40 * UNIT} bytes, 1 chutes")
    assert "on 1 GPUs now" in lines[1]
    text = render(lambda: status).decode()
    assert f"chutes_miner_cache_used_bytes {float(report.used_bytes)}" in text
    assert 'chutes_miner_cache_launches_total{found="cold"} 1.0' in text
