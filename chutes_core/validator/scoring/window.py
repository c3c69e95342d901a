"""From the store's records to the inputs of the score: which time and which work count.

Pure; the first step of store -> **window** -> score -> vector -> weights. Invariant: every payer is
named with its coldkey, where one is known, and a GPU that was leased to two validators marks the
whole span of its launch.
"""

from collections.abc import Collection, Iterable, Mapping

from chutes_core.validator.domain.spans import ActiveSpan, PaidSum
from chutes_core.validator.scoring.score import GpuSpan, PaidWork, Work


def work_of(
    spans: Iterable[ActiveSpan],
    paid: Iterable[PaidSum],
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
        paid: what each payer's calls on each launch come to in that time.
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
        paid=tuple(_paid(sums, coldkey_of_user) for sums in paid),
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


def _paid(sums: PaidSum, coldkey_of_user: Mapping[str, str]) -> PaidWork:
    return PaidWork(
        launch_id=sums.launch_id,
        payer_user_id=sums.user_id,
        payer_coldkey=coldkey_of_user.get(sums.user_id, ""),
        usage_us=sums.usage_us,
        charge_rao=sums.charge_rao,
    )
