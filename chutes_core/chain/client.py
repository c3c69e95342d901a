"""Everything a neuron says to the chain and reads from it, behind blocking, bounded calls.

The entrance of chain/ (the caller uses one thread, by asyncio.to_thread). Invariants: reads are of
the finalized head; a write succeeds only at finality; announcements are idempotent (what the chain
already says is not sent again); weights are never sent twice within the subnet's rate limit.
"""

import ipaddress
import threading
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import bittensor as bt
from bittensor_core import Keypair

from chutes_core.base.errors import ChainError, Invalid
from chutes_core.chain.commitments import commitment_fields, commitment_text
from chutes_core.chain.connection import Connection, Patience, Sleep
from chutes_core.chain.extrinsics import Build, Receipt, finalized_head, submit
from chutes_core.chain.genesis import is_devnet_header
from chutes_core.chain.intents import Intent, OutboxStore
from chutes_core.chain.metagraph import Metagraph, Neuron, read_metagraph
from chutes_core.chain.outbox import Outbox
from chutes_core.chain.subnet import Subnet, read_subnet
from chutes_core.chain.weights import find_weights, weights_call

T = TypeVar("T")

_AXON_VERSION = 1
_AXON_PROTOCOL = 4


@dataclass(frozen=True)
class BlockRef:
    """A finalized block."""

    number: int
    hash: str


class ChainClient:
    """One subnet of one chain, over one node. Build it with `connect`."""

    def __init__(
        self, connection: Connection, netuid: int, genesis_hash: str, *, is_devnet: bool
    ) -> None:
        self._connection = connection
        self._write_lock = threading.Lock()
        self._outbox: Outbox | None = None
        self._archive: Connection | None = None
        self.netuid = netuid
        self.genesis_hash = genesis_hash
        self.is_devnet = is_devnet

    @classmethod
    def connect(
        cls,
        url: str,
        netuid: int,
        *,
        patience: Patience | None = None,
        sleep: Sleep | None = None,
    ) -> "ChainClient":
        """Connect to a node and read which chain it serves.

        Args:
            url: ``ws://`` or ``wss://`` address, or a network name that the SDK knows.
            netuid: the subnet that every call is about.
            patience: time limits and retries.
            sleep: waits between tries; None waits in a way that ``close`` cuts off.

        Raises:
            Unavailable: ``chain_unreachable`` or ``chain_timeout``.
            Invalid: ``unknown_network``.
        """
        try:
            _, endpoint = bt.settings.resolve_endpoint(url)
        except ValueError as error:
            raise Invalid("unknown_network", str(error), hint="pass a ws:// URL") from error
        connection = Connection(endpoint, patience or Patience(), sleep)
        try:
            genesis_hash, header = connection.read(_read_genesis, "read the genesis header")
            is_devnet = is_devnet_header(header, genesis_hash)
        except BaseException:
            connection.close()
            raise
        return cls(connection, netuid, genesis_hash, is_devnet=is_devnet)

    def close(self) -> None:
        """Close the connection, from any thread; calls under way raise ``chain_closed``."""
        self._connection.close()
        if self._archive is not None:
            self._archive.close()

    def use_outbox(
        self,
        store: OutboxStore,
        *,
        archive_url: str | None = None,
        reached: Callable[[str], None] | None = None,
    ) -> Outbox:
        """Write every extrinsic down in ``store`` from now on; return the outbox.

        Args:
            store: outlives this process.
            archive_url: of a node of the same chain that keeps old state.
            reached: see `Outbox`.
        """
        if archive_url is not None and self._archive is None:
            self._archive = Connection(archive_url, self._connection.patience)
        self._outbox = Outbox(self._connection, store, archive=self._archive, reached=reached)
        return self._outbox

    def __enter__(self) -> "ChainClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def finalized(self) -> BlockRef:
        """Return the finalized head.

        Raises:
            Unavailable: the node stayed unreachable.
        """
        return BlockRef(*self._connection.read(finalized_head, "read the finalized head"))

    def metagraph(self) -> Metagraph:
        """Return the neurons of the subnet at the finalized head.

        Raises:
            NotFound: ``no_such_subnet``.
            Unavailable: the node stayed unreachable.
        """

        async def read(substrate: bt.RpcSubstrate) -> Metagraph:
            return await read_metagraph(substrate, self.netuid, *await finalized_head(substrate))

        return self._connection.read(read, "read the metagraph")

    def subnet(self) -> Subnet:
        """Return the subnet's parameters and epoch schedule at the finalized head.

        Raises:
            NotFound: ``no_such_subnet``.
            Unavailable: the node stayed unreachable.
        """

        async def read(substrate: bt.RpcSubstrate) -> Subnet:
            return await read_subnet(substrate, self.netuid, *await finalized_head(substrate))

        return self._connection.read(read, "read the subnet")

    def commitments(self) -> dict[str, str]:
        """Return the plain text that each hotkey has committed on the subnet.

        Raises:
            Unavailable: the node stayed unreachable.
        """

        async def read(substrate: bt.RpcSubstrate) -> dict[str, str]:
            _, block_hash = await finalized_head(substrate)
            pairs = await substrate.query_map(
                *_item(bt.storage.Commitments.CommitmentOf), [self.netuid], block_hash=block_hash
            )
            texts = {str(hotkey): commitment_text(record) for hotkey, record in pairs}
            return {hotkey: text for hotkey, text in texts.items() if text}

        return self._connection.read(read, "read the commitments")

    def owner_of(self, hotkey_ss58: str) -> str | None:
        """Return the coldkey that owns a hotkey on chain, or None where nobody does.

        Raises:
            Unavailable: the node stayed unreachable.
        """

        async def read(substrate: bt.RpcSubstrate) -> str | None:
            _, block_hash = await finalized_head(substrate)
            owner = await substrate.query(*_item(_OWNER), [hotkey_ss58], block_hash=block_hash)
            return None if not owner or str(owner) == _NOBODY else str(owner)

        return self._connection.read(read, "read the owner of a hotkey")

    def balance_rao(self, address_ss58: str) -> int:
        """Return the free balance of an account at the finalized head, in rao.

        Raises:
            Unavailable: the node stayed unreachable.
        """

        async def read(substrate: bt.RpcSubstrate) -> int:
            _, block_hash = await finalized_head(substrate)
            account = await substrate.query(
                "System", "Account", [address_ss58], block_hash=block_hash
            )
            return int(account["data"]["free"])

        return self._connection.read(read, "read a balance")

    def transfer_fee_rao(self, sender: Any, destination_ss58: str, value_rao: int) -> int:
        """Return what a transfer costs now, in rao; ``sender`` needs no secret.

        Raises:
            Unavailable: the node stayed unreachable.
        """

        async def read(substrate: bt.RpcSubstrate) -> int:
            call = await composed(transfer_call(destination_ss58, value_rao))(substrate)
            quote = await substrate.raw.get_payment_info(call, sender)
            return int(quote["partial_fee"])

        return self._connection.read(read, "read the fee of a transfer")

    def serve_axon(self, hotkey: Keypair, ip: str, port: int) -> Receipt | None:
        """Announce where the hotkey's neuron listens; None where the chain already says so.

        Raises:
            Invalid: ``bad_axon_address``.
            ChainError: refused, e.g. ``not_registered`` or ``coldkey_cannot_pay``.
            Unavailable: the node stayed unreachable.
        """
        try:
            address = ipaddress.ip_address(ip)
        except ValueError as error:
            raise Invalid("bad_axon_address", f"{ip!r} is not an IP address") from error
        if not 0 < port < 65_536:
            raise Invalid("bad_axon_address", f"{port} is not a port")
        with self._write_lock:
            neuron = self._own_neuron(hotkey.ss58_address)
            if (neuron.axon_ip, neuron.axon_port) == (str(address), port):
                return None
            call = bt.calls.SubtensorModule.serve_axon(
                netuid=self.netuid,
                version=_AXON_VERSION,
                ip=int(address),
                port=port,
                ip_type=address.version,
                protocol=_AXON_PROTOCOL,
                placeholder1=0,
                placeholder2=0,
            )
            return self._submit(composed(call), hotkey, "serve the axon")

    def set_commitment(self, hotkey: Keypair, text: str) -> Receipt | None:
        """Commit a text of at most 128 bytes; None where the chain already says so.

        Raises:
            Invalid: ``commitment_too_long``.
            ChainError: refused, e.g. ``not_registered`` or ``coldkey_cannot_pay``.
            Unavailable: the node stayed unreachable.
        """
        fields = commitment_fields(text)
        with self._write_lock:
            self._own_neuron(hotkey.ss58_address)
            if self.commitments().get(hotkey.ss58_address) == text:
                return None
            call = bt.calls.Commitments.set_commitment(netuid=self.netuid, info=fields)
            return self._submit(composed(call), hotkey, "set the commitment")

    def set_weights(
        self,
        hotkey: Keypair,
        weights: Mapping[int, int],
        version_key: int,
        *,
        intent_id: str | None = None,
    ) -> Receipt:
        """Send a weight vector, plainly or as a timelocked commit as the subnet demands.

        Args:
            hotkey: the validator's.
            weights: uid to u16; passed to the chain unaltered where commit-reveal is off.
            version_key: the weights version that the vector was made for.
            intent_id: names what is meant over all tries (one an epoch); with an outbox, what is
                in flight or done under this name is never sent again.

        Returns:
            The receipt of the finalized extrinsic.

        Raises:
            Invalid: ``bad_weights``.
            Exhausted: ``weights_rate_limited``: the last vector is too fresh; nothing was sent.
            ChainError: refused, e.g. ``no_validator_permit`` or ``coldkey_cannot_pay``.
            Unavailable: ``extrinsic_in_flight``, or the node stayed unreachable.
            TimedOut: ``extrinsic_unknown``.
        """
        build = weights_call(self.netuid, hotkey, weights, version_key)
        with self._write_lock:
            return self._submit(build, hotkey, "set weights", intent_id=intent_id)

    def weights_receipt(self, hotkey_ss58: str, block_number: int) -> Receipt | None:
        """Return the receipt of the weights that a hotkey set in a finalized block, if it did.

        The chain dates a neuron's last update; with this a validator that died between sending and
        storing learns afterwards what it had sent.

        Raises:
            Unavailable: the node stayed unreachable.
        """

        async def read(substrate: bt.RpcSubstrate) -> Receipt | None:
            if block_number > await substrate.finalized_block_number():
                return None
            return await find_weights(substrate, hotkey_ss58, block_number)

        return self._connection.read(read, "look for an extrinsic")

    def read(self, question: Callable[[bt.RpcSubstrate], Awaitable[T]], doing: str) -> T:
        """Return what ``question`` reads, tried again on a fresh connection where one is lost.

        Raises:
            Unavailable: the node stayed unreachable.
        """
        return self._connection.read(question, doing)

    def call(self, coldkey: Any, generated_call: Any, doing: str) -> Receipt:
        """Send one generated call signed by a coldkey; for scripts run where the coldkey is.

        Raises:
            ChainError: refused.
            Unavailable: the node stayed unreachable.
        """
        with self._write_lock:
            return submit(
                self._connection, composed(generated_call), coldkey, doing, hotkey_signed=False
            )

    def _submit(
        self, build: Build, hotkey: Keypair, doing: str, *, intent_id: str | None = None
    ) -> Receipt:
        if self._outbox is None:
            return submit(self._connection, build, hotkey, doing)
        intent = Intent(intent_id or f"{doing}:{uuid.uuid4()}", doing)
        return self._outbox.deliver(intent, build, hotkey, doing)

    def _own_neuron(self, hotkey_ss58: str) -> Neuron:
        neuron = self.metagraph().by_hotkey(hotkey_ss58)
        if neuron is None:
            raise ChainError(
                "not_registered",
                f"the hotkey {hotkey_ss58} is not registered on subnet {self.netuid}",
                hint="register it where the coldkey is: scripts/register.py",
            )
        return neuron


_OWNER = bt.storage.SubtensorModule.Owner
_NOBODY = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"
"""SS58 of 32 zero bytes: the default that the chain answers for a hotkey nobody owns."""


def transfer_call(destination_ss58: str, value_rao: int) -> Any:
    """Return the call that sends TAO and keeps the sender's account alive."""
    return bt.calls.Balances.transfer_keep_alive(dest=destination_ss58, value=value_rao)


def composed(call: Any) -> Build:
    """Return a builder for a call that needs nothing but composing."""

    async def build(substrate: bt.RpcSubstrate) -> Any:
        return await substrate.compose(call)  # type: ignore[no-untyped-call]  # the SDK's

    return build


def _item(item: Any) -> tuple[str, str]:
    return str(item[0]), str(item[1])


async def _read_genesis(substrate: bt.RpcSubstrate) -> tuple[str, Mapping[str, Any]]:
    genesis_hash = await substrate.block_hash(0)
    header = await substrate.raw.rpc_request("chain_getHeader", [genesis_hash])
    if not isinstance(header, dict):
        raise ChainError("bad_header", "the node has no header of block 0", hint="use another node")
    return genesis_hash, header
