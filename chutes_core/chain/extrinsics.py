"""Signs one extrinsic, sends it once, and says what became of it at finality.

The choke point of every chain write (chain/client and chain/registration call it). Invariants: the
hash is known before the bytes leave, so a lost connection is answered by looking for that hash in
the finalized blocks of its era, never by signing again; success is ExtrinsicSuccess in a
*finalized* block; a key with an extrinsic under way gets no second one (DESIGN section 4). Scripts
for a person use it alone; processes that must survive a crash send through chain/outbox.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import bittensor as bt

from chutes_core.base.errors import ChainError, TimedOut, Unavailable
from chutes_core.chain.connection import Connection
from chutes_core.chain.failures import NODE_LOST, refused

ERA_BLOCKS = 64
"""Blocks for which a signature is good; afterwards an extrinsic that is in none of them is dead."""
_UNCLEAR_S = 30.0
"""How long to look for an extrinsic whose submission failed without a reason from the node."""
_MAX_POLL_S = 3.0
_KNOWN_ALREADY = "AlreadyImported"

Build = Callable[[bt.RpcSubstrate], Awaitable[Any]]


@dataclass(frozen=True)
class Receipt:
    """Where an extrinsic succeeded: the finalized block that holds it."""

    extrinsic_hash: str
    block_number: int
    block_hash: str


@dataclass(frozen=True)
class Signed:
    """A signed extrinsic, and the blocks that can hold it: ``from_block`` to ``to_block``."""

    extrinsic: Any
    extrinsic_hash: str
    nonce: int
    from_block: int
    to_block: int
    poll_s: float


@dataclass(frozen=True)
class _Sent:
    failure: bt.ChainError | None


async def finalized_head(substrate: bt.RpcSubstrate) -> tuple[int, str]:
    """Return number and hash of the finalized head."""
    number = await substrate.finalized_block_number()
    return number, await substrate.block_hash(number)


def submit(
    connection: Connection, build: Build, signer: Any, doing: str, *, hotkey_signed: bool = True
) -> Receipt:
    """Sign the call that ``build`` composes, send it and wait until its block is finalized.

    Args:
        connection: to the node.
        build: composes the call on a connected backend.
        signer: keypair of the signing account.
        doing: what this is, for error messages, e.g. ``serve the axon``.
        hotkey_signed: the signer is a hotkey, so that its coldkey pays the fee.

    Raises:
        ChainError: the chain refused the call, or its dispatch failed; code and hint say why.
        Unavailable: ``extrinsic_in_flight``, or the node is unreachable (nothing was sent).
        TimedOut: ``extrinsic_unknown``: it was sent, and its fate is not known yet.
    """
    signed = connection.read(lambda substrate: sign(substrate, build, signer), doing)
    failure = transmit(connection, signed, signer, doing)
    if failure is not None and failure.name:
        raise refused(failure, doing, hotkey_signed=hotkey_signed) from failure
    limit_s = connection.patience.finality_timeout_s if failure is None else _UNCLEAR_S
    result = _await_finality(connection, signed, doing, limit_s)
    if result is None and failure is not None:
        raise refused(failure, doing, hotkey_signed=hotkey_signed) from failure
    if result is None:
        raise TimedOut(
            "extrinsic_unknown",
            f"cannot {doing}: extrinsic {signed.extrinsic_hash} is in no finalized block yet",
            hint="look at the chain before trying again; it may still be included",
            extrinsic_hash=signed.extrinsic_hash,
        )
    outcome, number, block_hash = result
    if not outcome.success:
        cause = outcome.error or bt.ChainError(outcome.message)
        raise refused(cause, doing, hotkey_signed=hotkey_signed) from cause
    return Receipt(signed.extrinsic_hash, number, block_hash)


async def sign(substrate: bt.RpcSubstrate, build: Build, signer: Any) -> Signed:
    """Compose and sign a call with the next nonce; nothing is sent.

    Raises:
        Unavailable: ``extrinsic_in_flight``.
        ConnectionError: the chain was upgraded; a fresh connection knows the new runtime.
    """
    await _same_runtime(substrate)
    address = signer.ss58_address
    substrate.raw.clear_nonce_cache_for_account(address)
    next_index = await substrate.account_next_index(address)
    # the pool was asked first: what it had sent before is finalized or dead at this head
    number, block_hash = await finalized_head(substrate)
    account = await substrate.query("System", "Account", [address], block_hash=block_hash)
    if next_index != int(account["nonce"]):
        raise Unavailable(
            "extrinsic_in_flight",
            "another extrinsic of this key is not finalized yet",
            hint="wait for it; one extrinsic of a key is under way at a time",
        )
    built = await build(substrate)
    call = getattr(built, "call", built)  # an intent may wrap its call with extras
    extrinsic = await substrate.raw.create_signed_extrinsic(
        call, signer, nonce=next_index, era={"period": ERA_BLOCKS, "current": number}
    )
    poll_s = min(await substrate.block_time() / 2, _MAX_POLL_S)
    return Signed(
        extrinsic,
        extrinsic.extrinsic_hash,
        next_index,
        number + 1,
        number + 1 + ERA_BLOCKS,
        poll_s,
    )


async def _same_runtime(substrate: bt.RpcSubstrate) -> None:
    """Raise where the SDK still holds the runtime from before an upgrade.

    It asks again only every twelve seconds. Signed for the old one, the extrinsic would be refused
    as forged, and its key would wait for the end of its era before it signs another.
    """
    now = (await substrate.raw.rpc_request("state_getRuntimeVersion", []))["specVersion"]
    if now != await substrate.spec_version():
        raise ConnectionError(f"the chain's runtime was upgraded to {now}: connecting anew")


def transmit(
    connection: Connection, signed: Signed, signer: Any, doing: str
) -> bt.ChainError | None:
    """Send once; return the node's refusal, or None where it took it or may have taken it."""

    async def send(substrate: bt.RpcSubstrate) -> _Sent:
        result = await substrate.submit_signed(
            signed.extrinsic, signer, wait_for_inclusion=False, wait_for_finalization=False
        )
        return _Sent(None if result.success else result.error or bt.ChainError(result.message))

    try:
        failure = connection.write(send, doing).failure
    except Unavailable as error:
        if error.code not in NODE_LOST:
            raise
        return None  # the node may have it: look for the hash
    return None if failure is not None and failure.name == _KNOWN_ALREADY else failure


def _await_finality(
    connection: Connection, signed: Signed, doing: str, limit_s: float
) -> tuple[bt.ExtrinsicResult, int, str] | None:
    """Look through the finalized blocks of the era; None where time ran out."""
    last_block = signed.to_block
    search = _Search(signed.extrinsic_hash, signed.from_block, last_block)
    deadline_s = connection.monotonic_s() + limit_s
    while True:
        found = connection.read(search.advance, doing)
        if found is not None:
            return found
        if search.next_block > last_block:
            raise ChainError(
                "extrinsic_died",
                f"cannot {doing}: extrinsic {signed.extrinsic_hash} is in no block of its era",
                hint="the node dropped it; it can be sent again",
                extrinsic_hash=signed.extrinsic_hash,
            )
        if connection.monotonic_s() >= deadline_s:
            return None
        connection.sleep(signed.poll_s)


class _Search:
    """Goes once through the finalized blocks; keeps its place over reconnections."""

    def __init__(self, extrinsic_hash: str, next_block: int, last_block: int) -> None:
        self.extrinsic_hash = extrinsic_hash
        self.next_block = next_block
        self.last_block = last_block

    async def advance(
        self, substrate: bt.RpcSubstrate
    ) -> tuple[bt.ExtrinsicResult, int, str] | None:
        """Look at every block finalized since the last look."""
        finalized = await substrate.finalized_block_number()
        while self.next_block <= min(finalized, self.last_block):
            block_hash = await substrate.block_hash(self.next_block)
            result = await substrate.find_extrinsic(self.extrinsic_hash, block_hash)
            if result is not None:
                return result, self.next_block, block_hash
            self.next_block += 1
        return None
