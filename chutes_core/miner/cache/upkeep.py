"""What of the model cache goes, and whose instances went over their bound: pure.

Path: model_cache -> `tidy` -> model_cache carries it out. Invariants
(tests/property/test_model_cache.py): a folder that is in use never goes; what stays fits into the
bound as far as folders in use allow; the longest unused goes first, and nothing goes in vain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chutes_core.miner.cache.folders import Key

Why = Literal["room", "disk_short", "over_bound", "off"]
MAX_FOLDERS = 1_000


@dataclass(frozen=True)
class Held:
    """One folder: its size, its last use, and how many GPUs its chute's instances have now."""

    key: Key
    used_bytes: int
    used_at_s: int
    gpus: int = 0
    excess: str = ""


@dataclass(frozen=True)
class Bounds:
    """Bytes of the cache in all, the part of each GPU, and what is to stay free on the disk."""

    most_bytes: int
    part_bytes: int
    kept_free_bytes: int


@dataclass(frozen=True)
class Tidying:
    """What is to be done: folders that go, and chutes whose instances must end, with the reason."""

    evict: Mapping[Key, Why]
    end: Mapping[Key, str]


def tidy(
    folders: Sequence[Held],
    bounds: Bounds,
    free_bytes: int,
    condemned: frozenset[Key] = frozenset(),
) -> Tidying:
    """Return what must go.

    Args:
        folders: all of them.
        bounds: of the cache.
        free_bytes: of the disk now.
        condemned: folders that went over their bound while they were in use.
    """
    evict: dict[Key, Why] = {}
    end: dict[Key, str] = {}
    for one in folders:
        if one.gpus and (said := overrun(one, bounds)):
            end[one.key] = said
        elif not one.gpus and (one.key in condemned or one.excess):
            evict[one.key] = "over_bound"
    left = [one for one in folders if one.key not in evict]
    held, count = sum(one.used_bytes for one in left), len(left)
    free = free_bytes + sum(one.used_bytes for one in folders if one.key in evict)
    for one in sorted(left, key=lambda folder: (folder.used_at_s, folder.key)):
        why = None if one.gpus else _objection(one, bounds, held, count, free)
        if why is not None:
            evict[one.key] = why
            held, count, free = held - one.used_bytes, count - 1, free + one.used_bytes
    return Tidying(evict, end)


def overrun(folder: Held, bounds: Bounds) -> str:
    """Return why a folder in use is over its bound: the part of each GPU that uses it; or ""."""
    if not bounds.most_bytes:
        return ""
    if folder.excess:
        return folder.excess
    bound = bounds.part_bytes * folder.gpus
    if folder.used_bytes > bound:
        return f"it holds {folder.used_bytes} bytes of {bound}"
    return ""


def _objection(one: Held, bounds: Bounds, held: int, count: int, free: int) -> Why | None:
    if not bounds.most_bytes:
        return "off"
    if count > MAX_FOLDERS or (held > bounds.most_bytes and one.used_bytes):
        return "room"
    return "disk_short" if free < bounds.kept_free_bytes and one.used_bytes else None
