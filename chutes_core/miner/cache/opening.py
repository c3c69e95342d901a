"""The model cache as the settings want it: where, how large, and whether it can be at all.

Path: app.py -> `open_folders` before anything runs; parts.py -> `bounds_of`. Invariant: the bound
is a constant of a miner's settings, disk and GPUs, so that no instance is ended for what others do;
it is at most half of the disk, and the parts of all GPUs together are never more than the bound.
"""

import os
import shutil
from pathlib import Path

from loguru import logger

from chutes_core.engine.run import USER_ID
from chutes_core.miner.cache.folders import Folders
from chutes_core.miner.cache.model_cache import KEPT_FREE_BYTES
from chutes_core.miner.cache.upkeep import Bounds
from chutes_core.miner.settings import MinerSettings

_GB = 1_000_000_000
_OF_DISK = 2  # at most the half


def open_folders(settings: MinerSettings) -> Folders:
    """Return the locked directory of the cache.

    Raises:
        Conflict: ``cache_dir_in_use``.
    """
    in_containers = settings.runtime == "docker" and os.geteuid() == 0
    return Folders(settings.cache_path, user_id=USER_ID if in_containers else None)


def bounds_of(settings: MinerSettings, gpus: int) -> Bounds:
    """Return the bounds; none of nothing where there is no cache."""
    if not is_possible(settings):
        logger.bind(code="cache_needs_root").warning(
            "no model cache: only root can give a container's user a folder, and take it back"
        )
        return Bounds(0, 0, KEPT_FREE_BYTES)
    most = most_bytes(settings.cache_gb, disk_of(settings.cache_path).total)
    return Bounds(most, most // max(1, gpus), KEPT_FREE_BYTES)


def most_bytes(cache_gb: int, disk_bytes: int) -> int:
    """Return the bound of the whole cache.

    >>> most_bytes(100, 50_000_000_000), most_bytes(100, 1_000_000_000_000), most_bytes(0, 9)
    (25000000000, 100000000000, 0)
    """
    return min(cache_gb * _GB, disk_bytes // _OF_DISK)


def is_possible(settings: MinerSettings) -> bool:
    """Tell whether this user can keep a cache for its runtime, or none is wanted anyway."""
    return not settings.cache_gb or settings.runtime == "process" or os.geteuid() == 0


def disk_of(path: Path) -> "shutil._ntuple_diskusage":
    """Return total, used and free bytes of the disk that a path lies on, or would lie on."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path)
