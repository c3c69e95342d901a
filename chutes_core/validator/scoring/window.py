"""From the store's records to the inputs of the score: which time and which calls count.

Pure; the first step of store -> **window** -> score -> vector -> weights. Invariant: a call counts
with exactly what the ledger charged for it (same rate, same rounding, never above its hold), and a
GPU that was leased to two validators marks the whole span of its launch. Calls are read once, one
by one, and only their sums are kept: a week may have millions of them.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.spans import ActiveSpan
from chutes_core.validator.scoring.score import WINDOW_US, GpuSpan, PaidCall, Work


def work_of(
    spans: Iterable[ActiveSpan],
    invocations: Iterable[Invocation],
    *,
    coldkey_of_user: Mapping[str, str],
    conflicted: Collection[tuple[str, str]],
    now_us: int,
    block: int,
    block_ms: int,
    tao_usd_micros: int,
) -> Work:
    """Return what the score of the seven days up to ``now_us`` is made of.

    Args:
        spans: when launches were active.
        invocations: calls; those that cost nothing or lie outside the window are left out.
        coldkey_of_user: the coldkey of each paying user, where one is known.
        conflicted: (miner hotkey, GPU) of every GPU leased twice inside the window.
        now_us: the end of the window, Unix time in microseconds.
        block: the finalized block that dates registrations.
        block_ms: time between blocks.
        tao_usd_micros: price of one TAO, in millionths of a US dollar.
    """
    return Work(
        now_us=now_us,
        block=block,
        block_ms=block_ms,
        tao_usd_micros=tao_usd_micros,
        spans=tuple(_span(span, conflicted) for span in spans),
        calls=_sums(
            (
                invocation
                for invocation in invocations
                if invocation.charged and now_us - WINDOW_US <= invocation.started_at_us < now_us
            ),
            coldkey_of_user,
        ),
    )


def _span(span: ActiveSpan, conflicted: Collection[tuple[str, str]]) -> GpuSpan:
    launch = span.launch
    return GpuSpan(
        launch_id=launch.launch_id,
        miner_hotkey=launch.miner_hotkey,
        registered_at_block=launch.registered_at_block,
        miner_coldkey=launch.miner_coldkey,
        gpu_class=launch.gpu_class,
        gpu_count=len(launch.gpu_uuids),
        from_us=span.from_us,
        to_us=span.to_us,
        conflicted=any((launch.miner_hotkey, uuid) in conflicted for uuid in launch.gpu_uuids),
    )


def _sums(
    invocations: Iterable[Invocation], coldkey_of_user: Mapping[str, str]
) -> tuple[PaidCall, ...]:
    usage_us: dict[tuple[str, str], int] = defaultdict(int)
    charge_rao: dict[tuple[str, str], int] = defaultdict(int)
    for one in invocations:
        pair = (one.launch_id, one.user_id)
        rate = Rate(one.rate_id, one.rao_per_hour, one.hold_rao)
        usage_us[pair] += one.usage_us
        charge_rao[pair] += rate.charge_rao(one.usage_us)
    return tuple(
        PaidCall(launch_id, user_id, coldkey_of_user.get(user_id, ""), used, charge)
        for ((launch_id, user_id), used), charge in zip(
            usage_us.items(), charge_rao.values(), strict=True
        )
    )
