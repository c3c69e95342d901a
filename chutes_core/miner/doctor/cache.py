"""The doctor's look at the model cache: whether there can be one, and the room for it.

Invariant: it opens nothing of what chutes have written; the size is what the running miner says by
its disk alone.
"""

from collections.abc import Iterable

from chutes_core.miner.cache.model_cache import KEPT_FREE_BYTES
from chutes_core.miner.cache.opening import disk_of, is_possible, most_bytes
from chutes_core.miner.doctor.report import Finding
from chutes_core.miner.settings import MinerSettings

_GB = 1_000_000_000


async def look_at_cache(settings: MinerSettings) -> Iterable[Finding]:
    """Return whether models can be kept for their next launch."""
    name, place = "model cache", settings.cache_path
    if not settings.cache_gb:
        return [Finding(name, "skip", "off (CHUTES_MINER_CACHE_GB=0)")]
    if not is_possible(settings):
        fix = "run the miner as root, or set CHUTES_MINER_CACHE_GB=0"
        return [Finding(name, "warn", "off: only root can give a container's user a folder", fix)]
    disk = disk_of(place)
    most = most_bytes(settings.cache_gb, disk.total)
    found = f"{most / _GB:.0f} GB at most in {place}, {disk.free / _GB:.0f} GB of the disk are free"
    if disk.free < KEPT_FREE_BYTES:
        fix = f"free space, or set CHUTES_MINER_CACHE_DIR: below {KEPT_FREE_BYTES / _GB:.0f} GB"
        return [Finding(name, "warn", found, f"{fix} models are thrown away before their time")]
    if most < settings.cache_gb * _GB:
        return [Finding(name, "ok", f"{found}; {settings.cache_gb} GB would be over half of it")]
    return [Finding(name, "ok", found)]
