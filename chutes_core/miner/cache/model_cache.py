"""Which chute gets which folder for its models, and how much of the disk all of them take.

Path: launcher -> `lend` (the folder that a runtime mounts); a loop of app.py -> `look` (sizes,
evictions, ends of instances that overran their bound); scheduler -> `warm`; desk -> `facts`;
standby -> `standing`: what waits with a folder mounted can write to it like an instance.
Invariants: a folder belongs to one (validator, chute) for good, so that nobody loads what another
has written, and is never lent to two; one in use is never evicted; sizes are read in threads. The
bound of a folder in use is checked after the fact: what overruns it ends, and loses its folder.
Why there is no wider sharing: docs/adr/0120.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError
from chutes_core.miner.cache import trees
from chutes_core.miner.cache.folders import Folder, Folders, Key
from chutes_core.miner.cache.trees import Size
from chutes_core.miner.cache.upkeep import Bounds, Held, Why, overrun, tidy

KEPT_FREE_BYTES = 2 << 30
"""With less than this free on the disk, folders that are not in use go."""
Hidden = Callable[[Path], int]


@dataclass(frozen=True)
class CacheFacts:
    """The cache as it is: bounds, folders, and what happened since the start."""

    bounds: Bounds
    folders: tuple[Held, ...]
    evicted: Mapping[str, int]
    launches: Mapping[str, int]
    """How many found their folder filled (``warm``), and how many empty or new (``cold``)."""

    @property
    def used_bytes(self) -> int:
        """Return what all folders take."""
        return sum(one.used_bytes for one in self.folders)


class ModelCache:
    """The folders of one miner.

    Args:
        folders: on the disk.
        bounds: of them; ``most_bytes`` 0: nothing is lent, and what lies there goes.
        in_use: (validator, chute) -> how many GPUs its launches have now.
        overran: told whose instances must end, and why.
        clock: for last uses.
        hidden: tells what the instances of a folder hold on the disk without a name.
        free: the disk's free bytes.
        standing: folder -> GPUs of what stands by with it mounted.
        shun: told a folder with which nothing may stand by any more.
    """

    def __init__(
        self,
        folders: Folders,
        bounds: Bounds,
        *,
        in_use: Callable[[], Mapping[Key, int]],
        overran: Callable[[Key, str], None],
        clock: Clock,
        hidden: Hidden = lambda files: 0,
        free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
        standing: Callable[[], Mapping[Path, int]] = dict,
        shun: Callable[[Path], None] = lambda files: None,
    ) -> None:
        self._disk = folders
        self._bounds = bounds
        self._in_use = in_use
        self._overran = overran
        self._clock = clock
        self._hidden = hidden
        self._free = free
        self._standing = standing
        self._shun = shun
        self._folders: dict[Key, Folder] = {}
        self._sizes: dict[Key, Size] = {}
        self._written: set[Key] = set()  # since they were measured
        self._condemned: set[Key] = set()
        self._moving = asyncio.Lock()  # a folder is lent or put away, never both at once
        self._evicted: Counter[str] = Counter()
        self._launches: Counter[str] = Counter()

    async def begin(self) -> None:
        """Take over what a former process of this miner has left."""
        found = await asyncio.to_thread(self._disk.reconcile)
        self._folders = {folder.key: folder for folder in found}
        for folder in found:
            await self._measure(folder.key)
        used = sum(size.used_bytes for size in self._sizes.values())
        logger.bind(folders=len(found), used_bytes=used, most_bytes=self._bounds.most_bytes).info(
            "model cache was opened"
        )

    async def lend(self, validator_hotkey: str, chute_id: str, gpu_count: int) -> Path | None:
        """Return the folder for a launch, which counts as in use already; None for no folder.

        A folder that holds more than this launch may is begun anew. One whose instances are about
        to be ended for that is lent to nobody.
        """
        if not self._bounds.most_bytes:
            return None
        key = Key(validator_hotkey, chute_id)
        async with self._moving:
            try:
                folder = await self._folder_for(key, gpu_count)
            except (ChutesError, OSError) as error:  # without a folder a launch is only slower
                logger.bind(code="cache_failed", chute_id=chute_id).warning(
                    "a launch got no folder for its models: {}", error
                )
                return None
            if folder is None:
                return None
            self._launches["warm" if self._is_filled(key) else "cold"] += 1
            return self._disk.files(folder)

    async def look(self) -> None:
        """Measure what is written to, and carry out what must be."""
        in_use = frozenset(self._using())
        written, self._written = in_use | self._written, set(in_use)
        for key in sorted(written & self._folders.keys()):
            await self._measure(key)
        free = await asyncio.to_thread(self._free, self._disk.directory)
        if free < self._bounds.kept_free_bytes:
            await self._count_hidden(in_use)
        async with self._moving:
            todo = tidy(self._held(), self._bounds, free, frozenset(self._condemned))
            for key, why in todo.evict.items():
                if key not in self._using():  # nothing stands by with it since
                    await self._put_away(key, why)
        for key, said in todo.end.items():
            if key not in self._condemned:
                self._condemned.add(key)
                logger.bind(code="cache_overrun", chute_id=key.chute_id).warning(
                    "the models of a chute overran their bound: {}", said
                )
                self._overran(key, said)
        for key in self._condemned & self._folders.keys():
            self._shun(self._disk.files(self._folders[key]))
        await asyncio.to_thread(self._disk.sweep)

    def warm(self) -> frozenset[Key]:
        """Return whose folders hold something."""
        return frozenset(key for key in self._folders if self._is_filled(key))

    def facts(self) -> CacheFacts:
        """Return the cache as it was at the last look."""
        return CacheFacts(self._bounds, self._held(), dict(self._evicted), dict(self._launches))

    async def _folder_for(self, key: Key, gpu_count: int) -> Folder | None:
        folder, now_s = self._folders.get(key), self._clock.now_s()
        shared = self._in_use().get(key, 0) > gpu_count
        if folder is not None and key in self._condemned and shared:
            return None
        if folder is not None and not shared:
            one = self._one(key, gpu_count)
            if key in self._condemned or overrun(one, self._bounds):
                if self._disk.files(folder) in self._standing():
                    self._condemned.add(key)  # it goes once nothing stands by with it
                    return None
                await self._put_away(key, "over_bound")
                folder = None
        if folder is None:
            folder = await asyncio.to_thread(self._disk.make, key, now_s)
            self._sizes[key] = Size()
        self._folders[key] = await asyncio.to_thread(self._disk.touch, folder, now_s)
        self._written.add(key)
        return folder

    async def _put_away(self, key: Key, why: Why) -> None:
        folder = self._folders[key]
        try:
            await asyncio.to_thread(self._disk.put_away, folder)
        except FileNotFoundError:  # somebody has removed it by hand
            logger.bind(code="cache_folder_gone", name=folder.name).warning(
                "a folder of the model cache was gone"
            )
        del self._folders[key]
        size = self._sizes.pop(key, Size())
        self._condemned.discard(key)
        self._evicted[why] += 1
        logger.bind(chute_id=key.chute_id, bytes=size.used_bytes, reason=why).info(
            "models of a chute were evicted"
        )

    async def _measure(self, key: Key) -> None:
        """Read the size of a folder, unless it has gone or goes meanwhile."""
        folder = self._folders.get(key)
        if folder is None:
            return
        size = await asyncio.to_thread(trees.measure, self._disk.files(folder))
        if key in self._folders and self._folders[key].name == folder.name:
            self._sizes[key] = size

    async def _count_hidden(self, keys: frozenset[Key]) -> None:
        """Add what instances hold open without a name: no walk over a folder shows it."""
        for key in sorted(keys & self._folders.keys()):
            if key in self._folders:
                files, size = self._disk.files(self._folders[key]), self._sizes[key]
                size.used_bytes += await asyncio.to_thread(self._hidden, files)

    def _is_filled(self, key: Key) -> bool:
        return self._sizes.get(key, Size()).entries > 0

    def _using(self) -> Mapping[Key, int]:
        """Return how many GPUs launches, and what stands by, have of each folder that is in use."""
        in_use, standing = Counter(self._in_use()), self._standing()
        for key, folder in self._folders.items() if standing else ():
            in_use[key] += standing.get(self._disk.files(folder), 0)
        return +in_use

    def _held(self) -> tuple[Held, ...]:
        in_use = self._using()
        return tuple(self._one(key, in_use.get(key, 0)) for key in sorted(self._folders))

    def _one(self, key: Key, gpus: int) -> Held:
        size = self._sizes.get(key, Size())
        used_at_s = self._folders[key].used_at_s
        return Held(key, size.used_bytes, used_at_s, gpus, size.excess)
