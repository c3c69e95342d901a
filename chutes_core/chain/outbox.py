"""Every extrinsic of ours is written down before it is sent, and paid for once whatever happens.

The choke point of money on its way to the chain: validator (weights, announcements), signer
(refunds) and scripts/sweep.py send through it. Invariants: one extrinsic in flight per key; the
signed bytes are stored before they leave; an intent that is in flight or done is never signed
again; an extrinsic is dead only when the finalized height has passed its era and its hash is in no
finalized block of that era; success is ExtrinsicSuccess in a finalized block. A process may die
between any two of `STEPS`: whoever opens the same store goes on from there.

A refused submission stays in flight until its era is over: the node that refused it has the bytes.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import bittensor as bt
from bittensor._transport.errors import SubstrateRequestException  # what `raw` raises; pinned SDK
from loguru import logger

from chutes_core.base.clock import Clock, SystemClock
from chutes_core.base.errors import ChainError, Conflict, TimedOut, Unavailable
from chutes_core.chain.connection import Connection
from chutes_core.chain.extrinsics import Build, Receipt, Signed, finalized_head, sign, transmit
from chutes_core.chain.failures import refused
from chutes_core.chain.intents import Intent, OutboxItem, OutboxState, OutboxStore

STEPS = ("begun", "signed", "stored", "sent", "found", "closed")
"""Where a process can die; a test kills it after each of them."""
_SEND_AGAIN_BLOCKS = 8
"""A node may drop an extrinsic from its pool; the same bytes are offered again after so many."""
_MAX_POLL_S = 3.0


class Outbox:
    """Sends for any number of keys over one node; safe to call from several threads.

    Args:
        connection: to the node.
        store: where extrinsics are written down.
        archive: to a node that keeps old state, for looking up what a long outage hid.
        clock: for the records' times.
        reached: called after each of `STEPS`, for tests that stop the process there.
    """

    def __init__(
        self,
        connection: Connection,
        store: OutboxStore,
        *,
        archive: Connection | None = None,
        clock: Clock | None = None,
        reached: Callable[[str], None] | None = None,
    ) -> None:
        self._connection = connection
        self._store = store
        self._archive = archive
        self._clock = clock or SystemClock()
        self._reached = reached or (lambda step: None)
        self._lock = threading.RLock()
        self._next_block: dict[str, int] = {}
        self._offered_at: dict[str, int] = {}
        self._alarmed: set[tuple[str, int]] = set()
        self.alarms = 0

    def deliver(
        self,
        intent: Intent,
        build: Build,
        signer: Any,
        doing: str,
        *,
        hotkey_signed: bool = True,
    ) -> Receipt:
        """Post an intent and wait until it is final; what an earlier try did counts.

        Raises:
            ChainError: the chain refused the call, or its dispatch failed; or ``extrinsic_died``.
            Unavailable: ``extrinsic_in_flight``, or the node is unreachable.
            TimedOut: ``extrinsic_unknown``: it is in flight, and a later call will know more.
        """
        deadline_s = self._connection.monotonic_s() + self._connection.patience.finality_timeout_s
        item = self._post_when_free(intent, build, signer, doing, hotkey_signed, deadline_s)
        while item.state is OutboxState.SIGNED:
            item = self.look(item)
            if item.state is not OutboxState.SIGNED:
                break
            if self._connection.monotonic_s() >= deadline_s:
                raise TimedOut(
                    "extrinsic_unknown",
                    f"cannot {doing}: extrinsic {item.extrinsic_hash} is in no finalized block yet",
                    hint="it is written down and looked for again at the next try",
                    extrinsic_hash=item.extrinsic_hash,
                )
            self._connection.sleep(self._pause_s())
        return receipt_of(item, doing)

    def post(
        self,
        intent: Intent,
        build: Build,
        signer: Any,
        doing: str,
        *,
        hotkey_signed: bool = True,
    ) -> OutboxItem:
        """Sign, write down and send an intent, unless an earlier try is in flight or done.

        Raises:
            ChainError: the node refused it (it stays in flight until its era is over), or
                ``foreign_nonce`` for an intent that moves money.
            Unavailable: ``extrinsic_in_flight``: another intent of the key is under way.
        """
        with self._lock:
            known = self._store.latest(intent.intent_id)
            if known is not None and known.state in (OutboxState.SIGNED, OutboxState.FINALIZED):
                return known
            self._reached("begun")
            self._free(signer.ss58_address)
            signed = self._connection.read(lambda substrate: sign(substrate, build, signer), doing)
            self._check_nonce(intent, signer.ss58_address, signed.nonce)
            self._reached("signed")
            item = _item(intent, signer.ss58_address, signed, self._clock.now_s())
            self._store.put(item)
            self._reached("stored")
            self._offered_at[item.extrinsic_hash] = signed.from_block
            failure = transmit(self._connection, signed, signer, doing)
            self._reached("sent")
        if failure is not None and failure.name:
            raise refused(failure, doing, hotkey_signed=hotkey_signed) from failure
        return item

    def look(self, item: OutboxItem) -> OutboxItem:
        """Look for an open extrinsic in what was finalized since; return it as it stands now.

        Raises:
            Unavailable: ``state_discarded``: it is in a block whose events the node has dropped.
        """
        if item.state is not OutboxState.SIGNED:
            return item
        with self._lock:
            head = self._connection.read(lambda s: _head(s, item.key_ss58), "read the head")
            found = self._search(item, head.number)
            if found is not None:
                self._reached("found")
                return self._close(found)
            taken = head.nonce > item.nonce
            if taken:
                self._alarm(item.key_ss58, item.nonce, "another extrinsic took the nonce of ours")
            if head.number >= item.era_to:
                return self._close(
                    replace(item, state=OutboxState.DEAD, error="in no block of its era")
                )
            if not taken:
                self._offer_again(item, head.number)
        return item

    def resume(self, key_ss58: str) -> OutboxItem | None:
        """Look at what is in flight for a key; None where nothing is."""
        item = self._store.open_of(key_ss58)
        return None if item is None else self.look(item)

    def _post_when_free(
        self,
        intent: Intent,
        build: Build,
        signer: Any,
        doing: str,
        hotkey_signed: bool,
        deadline_s: float,
    ) -> OutboxItem:
        while True:
            try:
                return self.post(intent, build, signer, doing, hotkey_signed=hotkey_signed)
            except Unavailable as error:
                waits = self._store.open_of(signer.ss58_address) is not None
                late = self._connection.monotonic_s() >= deadline_s
                if error.code != "extrinsic_in_flight" or not waits or late:
                    raise
            self._connection.sleep(self._pause_s())

    def _free(self, key_ss58: str) -> None:
        item = self.resume(key_ss58)
        if item is not None and item.state is OutboxState.SIGNED:
            raise Unavailable(
                "extrinsic_in_flight",
                f"{item.purpose} ({item.extrinsic_hash}) of this key is not final yet",
                hint="one extrinsic of a key is under way at a time; it is looked for again",
            )

    def _check_nonce(self, intent: Intent, key_ss58: str, nonce: int) -> None:
        expected = self._store.next_nonce(key_ss58)
        if nonce == expected or (expected is None and (nonce == 0 or not intent.amount_rao)):
            return
        self._alarm(key_ss58, nonce, f"the chain's nonce is {nonce}, ours would be {expected}")
        if intent.amount_rao:
            raise ChainError(
                "foreign_nonce",
                f"{key_ss58} has signed something that is not in this outbox; nothing was sent",
                hint="find out who else holds the key, or which backup is missing",
            )

    def _search(self, item: OutboxItem, finalized: int) -> OutboxItem | None:
        number = self._next_block.get(item.extrinsic_hash, item.era_from)
        while number <= min(finalized, item.era_to):
            found = self._in_block(item, number)
            if found is not None:
                return found
            number += 1
            self._next_block[item.extrinsic_hash] = number
        return None

    def _in_block(self, item: OutboxItem, number: int) -> OutboxItem | None:
        doing = "look for an extrinsic"
        block_hash = self._connection.read(lambda s: _holds(s, item, number), doing)
        if block_hash is None:
            return None
        try:
            return self._connection.read(lambda s: _outcome(s, item, number, block_hash), doing)
        except (ChainError, Unavailable) as error:
            if "discarded" not in f"{error} {error.__cause__}".lower():
                raise
            if self._archive is None:
                raise Unavailable(
                    "state_discarded",
                    f"the node has dropped the events of block {number}, which are needed",
                    hint="configure archive_url, an archive node of the same chain",
                ) from error
        return self._archive.read(lambda s: _outcome(s, item, number, block_hash), doing)

    def _offer_again(self, item: OutboxItem, finalized: int) -> None:
        """Hand the stored bytes to the node again: it may never have got them, or dropped them."""
        last = self._offered_at.get(item.extrinsic_hash)
        if last is None or finalized - last >= _SEND_AGAIN_BLOCKS:
            self._offered_at[item.extrinsic_hash] = finalized
            self._connection.read(lambda s: _offer(s, item), "send an extrinsic again")

    def _close(self, item: OutboxItem) -> OutboxItem:
        self._store.close(item)
        self._reached("closed")
        self._next_block.pop(item.extrinsic_hash, None)
        self._offered_at.pop(item.extrinsic_hash, None)
        log = logger.bind(
            purpose=item.purpose, extrinsic=item.extrinsic_hash, block=item.block_number
        )
        log.info("extrinsic ended: {}", item.state.value)
        return item

    def _alarm(self, key_ss58: str, nonce: int, detail: str) -> None:
        if (key_ss58, nonce) in self._alarmed:
            return
        self._alarmed.add((key_ss58, nonce))
        self.alarms += 1
        logger.bind(key=key_ss58, code="foreign_nonce").error(
            "a foreign nonce was seen: {}", detail
        )

    def _pause_s(self) -> float:
        return self._connection.read(_half_a_block_s, "read the block time")


def receipt_of(item: OutboxItem, doing: str) -> Receipt:
    """Return the receipt of a closed item.

    Raises:
        ChainError: ``dispatch_failed`` or ``extrinsic_died``.
        Conflict: ``not_final``: it is still in flight.
    """
    if item.state is OutboxState.FINALIZED and item.block_number is not None:
        return Receipt(item.extrinsic_hash, item.block_number, item.block_hash)
    if item.state is OutboxState.FAILED:
        code, _, message = item.error.partition(": ")
        raise ChainError(code or "dispatch_failed", message or f"cannot {doing}: it failed")
    if item.state is OutboxState.DEAD:
        raise ChainError(
            "extrinsic_died",
            f"cannot {doing}: extrinsic {item.extrinsic_hash} is in no block of its era",
            hint="the node dropped it; it can be sent again",
            extrinsic_hash=item.extrinsic_hash,
        )
    raise Conflict("not_final", f"extrinsic {item.extrinsic_hash} is still in flight")


def _item(intent: Intent, key_ss58: str, signed: Signed, now_s: int) -> OutboxItem:
    return OutboxItem(
        extrinsic_hash=signed.extrinsic_hash,
        intent_id=intent.intent_id,
        purpose=intent.purpose,
        amount_rao=intent.amount_rao,
        key_ss58=key_ss58,
        nonce=signed.nonce,
        signed=bytes(signed.extrinsic.data),
        era_from=signed.from_block,
        era_to=signed.to_block,
        created_at_s=now_s,
    )


@dataclass(frozen=True)
class _Head:
    number: int
    nonce: int


async def _head(substrate: bt.RpcSubstrate, key_ss58: str) -> _Head:
    number, block_hash = await finalized_head(substrate)
    account = await substrate.query("System", "Account", [key_ss58], block_hash=block_hash)
    return _Head(number, int(account["nonce"]))


async def _half_a_block_s(substrate: bt.RpcSubstrate) -> float:
    return float(min(await substrate.block_time() / 2, _MAX_POLL_S))


async def _holds(substrate: bt.RpcSubstrate, item: OutboxItem, number: int) -> str | None:
    """Return the hash of a finalized block if it holds these very bytes; needs no state."""
    block_hash = str(await substrate.block_hash(number))
    block = (await substrate.raw.rpc_request("chain_getBlock", [block_hash]))["block"]
    ours = "0x" + item.signed.hex()
    return block_hash if ours in block["extrinsics"] else None


async def _outcome(
    substrate: bt.RpcSubstrate, item: OutboxItem, number: int, block_hash: str
) -> OutboxItem | None:
    result = await substrate.find_extrinsic(item.extrinsic_hash, block_hash)
    if result is None:
        return None
    error = ""
    fee_rao = 0 if result.fee is None else int(result.fee.rao)
    if not result.success:
        report = await substrate.raw.resolve_extrinsic(item.extrinsic_hash, block_hash)
        fee_rao = int(report.total_fee_amount or 0)  # the SDK's result leaves it out on failure
        cause = result.error or bt.ChainError(result.message)
        told = refused(cause, item.purpose, hotkey_signed=not item.amount_rao)
        error = f"{told.code}: {told.message}"
    return replace(
        item,
        state=OutboxState.FINALIZED if result.success else OutboxState.FAILED,
        block_number=number,
        block_hash=block_hash,
        fee_rao=fee_rao,
        error=error,
    )


async def _offer(substrate: bt.RpcSubstrate, item: OutboxItem) -> None:
    """Submit stored bytes; the node's answer does not matter, since only blocks decide."""
    try:
        await substrate.raw.rpc_request("author_submitExtrinsic", ["0x" + item.signed.hex()])
    except SubstrateRequestException as error:
        logger.bind(extrinsic=item.extrinsic_hash).debug("not taken again: {}", error)
