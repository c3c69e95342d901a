"""The score of each registered miner, from records of attested GPU time and of paid calls.

Pure, in integers, the same whatever the order of its inputs. On the path launches and billing ->
**score** -> weights -> chain. Invariant: without work there is no score, and no caller moves more
score to a miner than it paid for calls that this miner answered.

First form (DESIGN section 8, "Score"). For one miner, i.e. one (hotkey, registration block), over
the last seven days:

    active(l)  = microseconds for which launch l was active and its GPUs were in no lease conflict
    used(l, p) = microseconds that the gateway measured on l for calls paid by p
    used(l)    = sum of used(l, p) over the payers p that count
    price(l)   = table price of the launch's GPUs, in rao per hour, by the TAO/USD rate given
    worth(l)   = price(l) x active(l) x min(1, (used(l) / active(l)) / 0.5)
               = price(l) x min(active(l), 2 x used(l))
    part(p)    = min( sum over l of worth(l) x used(l, p) / used(l),  paid(p) )
    age        = min(max(time since registration, one day), seven days)
    score      = (sum over p of part(p)) x one day / age

paid(p) is what p was charged for calls on this miner's launches. So the unit is rao of paid work a
day. A payer whose coldkey owns the miner does not count; free and failed calls cost nothing and are
not in the input. Half of the time busy counts as fully used: an instance that is always busy could
take no further call. Time since registration is never below one day, so that re-registering does
not turn a short burst of work into a high rate.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chutes_core.base.errors import Invalid
from chutes_core.base.gpus import GPU_CLASSES
from chutes_core.base.units import MICROSECONDS_PER_HOUR
from chutes_core.validator.domain.money import rao_per_hour

DAY_US = 24 * MICROSECONDS_PER_HOUR
WINDOW_US = 7 * DAY_US
FULLY_USED_FACTOR = 2
"""1 / 0.5: a busy share of a half counts as fully used."""

MinerKey = tuple[str, int]
"""(hotkey, registration block): one miner; its uid is looked up only when weights are sent."""


@dataclass(frozen=True)
class GpuSpan:
    """A stretch of time for which one launch was active and attested.

    ``conflicted``: its GPUs were leased to two validators at once, which earns nothing.
    """

    launch_id: str
    miner_hotkey: str
    registered_at_block: int
    miner_coldkey: str
    gpu_class: str
    gpu_count: int
    from_us: int
    to_us: int
    conflicted: bool = False


@dataclass(frozen=True)
class PaidWork:
    """All calls that one payer paid for on one launch inside the window, as sums.

    Free and failed calls are left out. The score is linear in both sums, so that it needs no single
    call, and its inputs grow with launches and payers alone.
    """

    launch_id: str
    payer_user_id: str
    payer_coldkey: str
    usage_us: int
    charge_rao: int


@dataclass(frozen=True)
class Work:
    """Everything a score is made of. ``block`` and ``block_ms`` date the registrations."""

    now_us: int
    block: int
    block_ms: int
    tao_usd_micros: int
    spans: tuple[GpuSpan, ...]
    paid: tuple[PaidWork, ...]


@dataclass(frozen=True)
class _Launch:
    miner: MinerKey
    miner_coldkey: str
    price_rao_per_hour: int
    active_us: int


def score(work: Work) -> dict[MinerKey, int]:
    """Return rao of paid work a day for each miner that was active, zero where nobody paid.

    Raises:
        Invalid: ``unknown_gpu_class``, ``bad_rate``, or ``launch_of_two_miners``.
    """
    if work.tao_usd_micros <= 0 or work.block_ms <= 0:
        raise Invalid("bad_rate", "the TAO/USD rate and the block time must be above zero")
    launches = _launches(work)
    worth, paid = _by_payer(launches, work.paid)
    earned: dict[MinerKey, int] = {launch.miner: 0 for launch in launches.values()}
    for (miner, payer), rao in worth.items():
        earned[miner] += min(rao, paid[miner, payer])
    return {miner: _per_day(rao, miner, work) for miner, rao in sorted(earned.items())}


def _launches(work: Work) -> dict[str, _Launch]:
    spans: dict[str, list[GpuSpan]] = defaultdict(list)
    for span in work.spans:
        spans[span.launch_id].append(span)
    return {launch_id: _launch(same, work) for launch_id, same in spans.items()}


def _launch(spans: Sequence[GpuSpan], work: Work) -> _Launch:
    first = spans[0]
    facts = {(s.miner_hotkey, s.registered_at_block, s.gpu_class, s.gpu_count) for s in spans}
    if len(facts) != 1:
        raise Invalid(
            "launch_of_two_miners",
            f"the records of launch {first.launch_id} name different miners or GPUs",
            hint="the store is damaged; no weights are set from it",
        )
    gpu = GPU_CLASSES.get(first.gpu_class)
    if gpu is None:
        raise Invalid("unknown_gpu_class", f"no price is known for GPU class {first.gpu_class!r}")
    clean = [(span.from_us, span.to_us) for span in spans if not span.conflicted]
    return _Launch(
        miner=(first.miner_hotkey, first.registered_at_block),
        miner_coldkey=first.miner_coldkey,
        price_rao_per_hour=rao_per_hour(
            gpu.usd_micros_per_hour, first.gpu_count, work.tao_usd_micros
        ),
        active_us=_union_us(clean, work.now_us - WINDOW_US, work.now_us),
    )


def _union_us(intervals: Iterable[tuple[int, int]], start_us: int, end_us: int) -> int:
    """Return the time covered by the intervals inside the window, overlaps counted once."""
    covered, reached = 0, start_us
    for begin, end in sorted(intervals):
        begin, end = max(begin, reached), min(end, end_us)
        if end > begin:
            covered += end - begin
            reached = end
    return covered


def _by_payer(
    launches: dict[str, _Launch], works: Iterable[PaidWork]
) -> tuple[dict[tuple[MinerKey, str], int], dict[tuple[MinerKey, str], int]]:
    """Return the worth of the work that each payer asked of each miner, and what it paid for it."""
    used: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    paid: dict[tuple[MinerKey, str], int] = defaultdict(int)
    for work in works:
        launch = launches.get(work.launch_id)
        if launch is None or not launch.active_us or work.payer_coldkey == launch.miner_coldkey:
            continue  # unknown, wholly in conflict, or the miner paying itself
        used[work.launch_id][work.payer_user_id] += max(work.usage_us, 0)
        paid[launch.miner, work.payer_user_id] += max(work.charge_rao, 0)
    worth: dict[tuple[MinerKey, str], int] = defaultdict(int)
    for launch_id, payers in used.items():
        launch, total_us = launches[launch_id], sum(payers.values())
        counted_us = min(launch.active_us, FULLY_USED_FACTOR * total_us)
        for payer, part_us in payers.items():
            if part_us:
                worth[launch.miner, payer] += (
                    launch.price_rao_per_hour * counted_us * part_us
                ) // (total_us * MICROSECONDS_PER_HOUR)
    return worth, paid


def _per_day(earned_rao: int, miner: MinerKey, work: Work) -> int:
    since_us = max(work.block - miner[1], 0) * work.block_ms * 1_000
    return earned_rao * DAY_US // min(max(since_us, DAY_US), WINDOW_US)
