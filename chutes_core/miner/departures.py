"""Which instances must leave although their validators want them, and why: a pure function.

Path: scheduler -> here -> placement.plan, which turns each into a drained stop. An instance leaves
when its GPU is promised to somebody else soon (an idle share that was lent goes back), when its
validator's lease has lapsed (this miner was cut off from it, so it was not renewed), when its GPU
is not well, or when its validator no longer speaks this miner's protocol. Invariant
(tests/property/test_miner_departures.py): an instance whose GPUs are well and promised to its own
validator beyond `NOTICE_BLOCKS` stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chutes_core.miner.placement import Running
from chutes_core.miner.reasons import GPU_UNHEALTHY, LEASE_LAPSED, OUTDATED, SHARE_RETURNED

NOTICE_BLOCKS = 4
"""An instance that must leave is drained that long before its lease ends."""


@dataclass(frozen=True)
class Promise:
    """To whom a GPU is leased now, through which block without a gap, and to whom after that."""

    validator_hotkey: str
    to_block: int
    then: str | None = None


def departures(
    running: Sequence[Running],
    *,
    promises: Mapping[str, Promise],
    block: int,
    unwell: frozenset[str] = frozenset(),
    outdated: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """Return launch id -> reason of every instance that must leave.

    Args:
        running: the launches; those that their validators ended leave anyway, and a node
            attestation is over before anything could change.
        promises: GPU uuid -> its lease that holds now; nothing where none holds.
        block: the finalized block now.
        unwell: GPUs that should run nothing.
        outdated: validators that announced a protocol which this miner does not speak.
    """
    leaving = {}
    for run in running:
        if run.end_reason is not None or run.admission:
            continue
        reason = _objection(run, promises, block, unwell, outdated)
        if reason is not None:
            leaving[run.launch_id] = reason
    return leaving


def _objection(
    run: Running,
    promises: Mapping[str, Promise],
    block: int,
    unwell: frozenset[str],
    outdated: frozenset[str],
) -> str | None:
    if run.validator_hotkey in outdated:
        return OUTDATED
    if unwell & set(run.gpu_uuids):
        return GPU_UNHEALTHY
    for gpu in run.gpu_uuids:
        promise = promises.get(gpu)
        if promise is None or promise.validator_hotkey != run.validator_hotkey:
            return LEASE_LAPSED
        if promise.then is not None and promise.to_block - block < NOTICE_BLOCKS:
            return SHARE_RETURNED
    return None
