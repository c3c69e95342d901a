"""What the validator does again and again: each loop is a clock and one service call.

The list is the whole story; the services decide what is due.
"""

import asyncio
from collections.abc import Callable

from chutes_core.base.loops import Loops
from chutes_core.base.units import parse_tao
from chutes_core.chain.transfers import TransferWatcher
from chutes_core.validator.app import Validator
from chutes_core.validator.billing.payments import CURSOR, Payments
from chutes_core.validator.feewatch import FeeWatch
from chutes_core.validator.launches.bell import SPACING_S
from chutes_core.validator.launches.inventories import MinerAddress
from chutes_core.wire.discovery import commitment_of

TICK_S = 0.5
LIGHT_TICK_S = 5.0
PRUNE_S = 60.0
LEASES_KEPT_BLOCKS = 60_000  # longer than the seven days that scoring looks back, at 12 s a block


def start_loops(loops: Loops, parts: Validator) -> None:
    """Start every loop of the validator."""
    settings = parts.ground.settings
    poll_s = settings.poll_seconds
    loops.every(poll_s, "chain", parts.network.refresh)
    loops.every(poll_s, "inventories", lambda: _query_miners(parts))
    loops.every(poll_s, "leases", lambda: _exchange_leases(parts))
    loops.every(poll_s, "payments", lambda: _credit(parts))
    loops.every(poll_s, "weights", lambda: _in_thread(_weights(parts)))
    watch = FeeWatch(
        parts.ground.chain,
        parts.ground.keys.coldkey_ss58,
        min_rao=parse_tao(settings.min_coldkey),
        health=parts.health,
    )
    loops.every(PRUNE_S, "fees", lambda: _in_thread(watch.run_once))
    loops.every(poll_s, "links", lambda: _recheck_links(parts))
    if parts.treasury.desk is not None:
        loops.every(poll_s, "refunds", lambda: _exchange_refunds(parts))
    loops.every(settings.renew_seconds, "commitment", lambda: commit_url(parts))
    loops.every(settings.renew_seconds, "renewals", parts.keeper.renew)
    loops.every(TICK_S, "launches", parts.keeper.sweep)
    loops.every(SPACING_S, "bell", parts.bell.look)
    loops.every(TICK_S, "jobs", parts.jobs.conductor.run_once)
    loops.every(LIGHT_TICK_S, "lights", parts.lights.run_once)
    loops.every(poll_s, "rounds", lambda: _round(parts))
    loops.every(TICK_S, "settlement", lambda: _settle(parts))
    loops.every(PRUNE_S, "day", parts.pictures.refresh)  # a new day has free calls again
    loops.every(TICK_S, "images", lambda: _in_thread(parts.images.build_pending))
    loops.every(PRUNE_S, "leftovers", lambda: _in_thread(parts.images.sweep))
    loops.every(PRUNE_S, "pruning", lambda: _in_thread(_prune(parts)))


async def commit_url(parts: Validator) -> None:
    """Let the chain name this validator's URL; sends nothing where it does already."""
    ground = parts.ground
    text = commitment_of(ground.public_url)
    await asyncio.to_thread(ground.chain.set_commitment, ground.keys.hotkey, text)


async def _recheck_links(parts: Validator) -> None:
    if await asyncio.to_thread(parts.treasury.linking.recheck):
        await parts.pictures.refresh()


async def _exchange_refunds(parts: Validator) -> None:
    desk = parts.treasury.desk
    assert desk is not None, "the loop is started only with a desk"
    await asyncio.to_thread(desk.run_once)


async def _query_miners(parts: Validator) -> None:
    addresses = [
        MinerAddress(neuron.hotkey, neuron.axon_ip, neuron.axon_port)
        for neuron in parts.network.miners()
        if neuron.axon_ip is not None and neuron.axon_port is not None
    ]
    await parts.inventories.query(addresses)


async def _round(parts: Validator) -> None:
    head = await asyncio.to_thread(parts.ground.chain.finalized)
    await parts.rounds.on_block(head.hash)


async def _exchange_leases(parts: Validator) -> None:
    network = parts.network
    await parts.inventories.exchange(network.other_validators(), allow_private=network.devnet)


async def _credit(parts: Validator) -> None:
    if await asyncio.to_thread(_credit_new, parts):
        await parts.pictures.refresh()


def _credit_new(parts: Validator) -> int:
    try:
        return credit_new_blocks(parts.treasury.payments, parts.watcher)
    finally:
        parts.health.figure("payments_block", parts.store.cursors.get(CURSOR) or 0)


async def _settle(parts: Validator) -> None:
    if await asyncio.to_thread(parts.journals.settle, parts.settlement.drain):
        await parts.pictures.refresh()


def credit_new_blocks(payments: Payments, watcher: TransferWatcher) -> int:
    """Credit all blocks that were finalized since the cursor; return how many transfers that was.

    The first start begins at the finalized head: nobody had an address before.
    """
    last = payments.begin(watcher.finalized_number())
    blocks = watcher.blocks_after(last, payments.last_hash())
    return sum(payments.apply(block) for block in blocks)


def _weights(parts: Validator) -> Callable[[], object]:
    return lambda: parts.weights.run_once(parts.ground.clock.now_us())


def _prune(parts: Validator) -> Callable[[], object]:
    def prune() -> None:
        parts.store.nonces.prune(parts.ground.clock.now_s())
        parts.jobs.endings.prune(parts.ground.settings.job_kept_s)
        parts.store.leases.prune(max(0, parts.network.block - LEASES_KEPT_BLOCKS))

    return prune


async def _in_thread(call: Callable[[], object]) -> None:
    await asyncio.to_thread(call)
