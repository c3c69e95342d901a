"""Every finalized block in order, with the transfers of TAO that happened in it.

The start of the money path: billing/payments credits an account by the destination of a transfer
and stores the block number as its cursor in the same transaction. Invariants: only finalized
blocks; none is skipped and none comes twice after a cursor; each block names the one before as its
parent, so a node that answers from another chain is noticed; events are decoded with the metadata
of their own block. Where the node has discarded a block's state, `archive_url` is asked; without
one the watcher stops with an error rather than pass the block over.

substrate-interface decodes the metadata in pure Python (about 5 s), so it opens at the first use
and is kept.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from substrateinterface import SubstrateInterface
from substrateinterface.exceptions import SubstrateRequestException
from websocket import WebSocketException

from chutes_core.base.errors import ChainError, Unavailable
from chutes_core.chain.failures import closed, unreachable

T = TypeVar("T")

_SS58_FORMAT = 42
_TYPES = {"types": {"Balance": "u64"}}
_TIMEOUT_S = 30
_ATTEMPTS = 3
_DISCARDED = "discarded"
NO_EXTRINSIC = -1


@dataclass(frozen=True)
class Transfer:
    """One movement of TAO between two accounts; the first three fields are its idempotency key.

    ``extrinsic_index`` is -1 for a transfer that the runtime made outside any extrinsic.
    """

    block_hash: str
    extrinsic_index: int
    event_index: int
    source_ss58: str
    destination_ss58: str
    rao: int


@dataclass(frozen=True)
class Loss:
    """TAO that an account lost to the chain itself: a fee that it paid, or its last dust."""

    block_hash: str
    extrinsic_index: int
    event_index: int
    account_ss58: str
    rao: int


@dataclass(frozen=True)
class FinalizedBlock:
    """A finalized block, its transfers and fees in order of their events.

    ``time_s`` is the block's own time; None where it holds no transfer, since nobody needs it then.
    """

    number: int
    hash: str
    parent_hash: str
    transfers: tuple[Transfer, ...]
    losses: tuple[Loss, ...] = ()
    time_s: int | None = None


class TransferWatcher:
    """Reads finalized blocks over one node; used from one thread at a time."""

    def __init__(self, url: str, *, archive_url: str | None = None) -> None:
        self._live = _Node(url)
        self._archive = _Node(archive_url) if archive_url else None
        self._lock = threading.Lock()

    def finalized_number(self) -> int:
        """Return the height of the finalized head.

        Raises:
            Unavailable: the node cannot be reached.
        """
        with self._lock:
            return self._live.ask(_finalized_number)

    def blocks_after(self, number: int, parent_hash: str | None = None) -> Iterator[FinalizedBlock]:
        """Yield block ``number`` + 1 and its successors up to the finalized head of now.

        Args:
            number: the last block that was worked off; -1 for none.
            parent_hash: its hash where the caller knows it; checked against the next block.

        Raises:
            ChainError: ``chain_reorganised`` (the node's chain does not go on from the cursor) or
                ``chain_behind`` (its finalized head is below the cursor).
            Unavailable: ``state_discarded``, or the node cannot be reached.
        """
        head = self.finalized_number()
        if head < number:
            raise ChainError(
                "chain_behind",
                f"the node's finalized head {head} is below block {number}, already worked off",
                hint="the node is syncing, or serves another chain",
            )
        for height in range(number + 1, head + 1):
            with self._lock:
                block = self._block(height)
            if parent_hash is not None and block.parent_hash != parent_hash:
                raise ChainError(
                    "chain_reorganised",
                    f"block {height} does not follow the block that was worked off before it",
                    hint="the node serves another chain; nothing was credited from it",
                )
            parent_hash = block.hash
            yield block

    def close(self) -> None:
        """Close the connections, from any thread; a read that goes on raises ``chain_closed``."""
        for node in self._nodes():
            node.end()
        with self._lock:
            for node in self._nodes():
                node.close()

    def _nodes(self) -> tuple["_Node", ...]:
        return (self._live,) if self._archive is None else (self._live, self._archive)

    def _block(self, height: int) -> FinalizedBlock:
        block_hash, header = self._live.ask(lambda node: _header(node, height))
        try:
            held = self._live.ask(lambda node: _held(node, block_hash))
        except _DiscardedError as error:
            if self._archive is None:
                raise Unavailable(
                    "state_discarded",
                    f"the node has discarded the state of block {height}; crediting has stopped",
                    hint="configure archive_url, an archive node of the same chain",
                    block=height,
                ) from error
            held = self._archive.ask(lambda node: _held(node, block_hash))
        transfers, losses, time_s = held
        return FinalizedBlock(
            height, block_hash, str(header["parentHash"]), transfers, losses, time_s
        )


class _DiscardedError(Exception):
    """The node no longer holds the state of a block."""


class _Node:
    """One lazily opened substrate-interface, reopened after a failure a bounded number of times."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._interface: SubstrateInterface | None = None
        self._ended = False

    def ask(self, question: Callable[[SubstrateInterface], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            if self._ended:
                raise closed(self._url)
            try:
                return question(self._open())
            except SubstrateRequestException as error:
                if _DISCARDED in str(error).lower():
                    raise _DiscardedError from error
                raise ChainError("chain", f"the node refused a read: {error}") from error
            except (WebSocketException, OSError) as error:
                self.close()
                if attempt == _ATTEMPTS:
                    raise unreachable(self._url, error) from error
        raise AssertionError("the loop returns or raises")

    def end(self) -> None:
        """Let no further question be asked."""
        self._ended = True

    def close(self) -> None:
        interface, self._interface = self._interface, None
        if interface is not None:
            interface.close()

    def _open(self) -> SubstrateInterface:
        if self._interface is None:
            self._interface = SubstrateInterface(
                url=self._url,
                ss58_format=_SS58_FORMAT,
                type_registry=_TYPES,
                ws_options={"timeout": _TIMEOUT_S},
                auto_reconnect=False,
            )
        return self._interface


def _finalized_number(node: SubstrateInterface) -> int:
    return int(node.get_block_number(node.get_chain_finalised_head()))


def _header(node: SubstrateInterface, height: int) -> tuple[str, Mapping[str, Any]]:
    block_hash = node.get_block_hash(height)
    header = node.rpc_request("chain_getHeader", [block_hash])["result"] if block_hash else None
    if header is None or int(header["number"], 16) != height:
        raise ChainError(
            "block_missing",
            f"the node has no finalized block {height} although its head is higher",
            hint="the node is damaged or still syncing; the block is tried again",
        )
    return str(block_hash), header


def _events(node: SubstrateInterface, block_hash: str) -> list[Mapping[str, Any]]:
    if int(node.rpc_request("chain_getHeader", [block_hash])["result"]["number"], 16) == 0:
        return []  # genesis has state but no events
    node.init_runtime(block_hash=block_hash)
    return [record.value for record in node.get_events(block_hash)]


def _held(
    node: SubstrateInterface, block_hash: str
) -> tuple[tuple[Transfer, ...], tuple[Loss, ...], int | None]:
    """Read what a block holds: transfers, losses, and its time where there are transfers."""
    transfers: list[Transfer] = []
    losses: list[Loss] = []
    for index, record in enumerate(_events(node, block_hash)):
        event = record["event"]
        fields = event["attributes"]
        extrinsic = record.get("extrinsic_idx")
        place = (block_hash, NO_EXTRINSIC if extrinsic is None else int(extrinsic), index)
        kind = (event["module_id"], event["event_id"])
        if kind == ("Balances", "Transfer"):
            source, to = str(fields["from"]), str(fields["to"])
            transfers.append(Transfer(*place, source, to, int(fields["amount"])))
        elif kind == ("TransactionPayment", "TransactionFeePaid"):
            losses.append(Loss(*place, str(fields["who"]), int(fields["actual_fee"])))
        elif kind == ("Balances", "DustLost"):
            losses.append(Loss(*place, str(fields["account"]), int(fields["amount"])))
    time_s = None
    if transfers:
        time_s = int(node.query("Timestamp", "Now", block_hash=block_hash).value) // 1_000
    return tuple(transfers), tuple(losses), time_s
