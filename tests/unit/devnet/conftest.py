"""A chain inside the test's process, without sockets or clocks."""

from dataclasses import dataclass
from typing import Any

import pytest
from bittensor_core import Keypair

from chutes_core.devnet.chain import Chain
from chutes_core.devnet.codec import Codec
from chutes_core.devnet.extrinsics import TransactionRefused
from chutes_core.devnet.genesis import NETUID, GenesisParams, dev_address
from chutes_core.devnet.metadata import DEFAULT_METADATA, load_metadata, patch_metadata

BLOCK_MS = 1_000


@dataclass(frozen=True)
class Outcome:
    """What became of an extrinsic: its block, and the name of its error or None."""

    block: int
    error: str | None
    events: list[dict[str, Any]]


class Harness:
    """Signs, submits and reads on one in-process chain."""

    def __init__(self, codec: Codec, params: GenesisParams) -> None:
        self.codec = codec
        self.chain = Chain(codec, params)
        self.statuses: dict[bytes, list[Any]] = {}
        self.blocks(1)

    def key(self, uri: str) -> Keypair:
        return Keypair.create_from_uri(uri)

    def address(self, uri: str) -> str:
        return dev_address(uri)

    def blocks(self, number: int = 1) -> None:
        for _ in range(number):
            self.chain.produce(1_700_000_000_000 + (self.chain.best.number + 1) * BLOCK_MS)

    def sign(
        self,
        uri: str,
        call: tuple[str, str, dict[str, Any]],
        *,
        nonce: int | None = None,
        era: Any = "00",
        era_block: int = 0,
        tip: int = 0,
        signer: str | None = None,
        genesis_hash: bytes | None = None,
    ) -> bytes:
        """Sign as ``signer`` (default: the sender itself) and return the extrinsic."""
        runtime, key = self.codec.runtime, self.key(uri)
        data = self.codec.compose_call(*call)
        if nonce is None:
            nonce = self.chain.next_index(key.ss58_address)
        anchor = self.chain.block_at(era_block)
        assert anchor is not None
        fields = {"era": era, "nonce": nonce, "tip": tip, "tip_asset_id": None}
        payload = runtime.signature_payload(
            data,
            **fields,
            genesis_hash=genesis_hash or self.chain.genesis_hash,
            era_block_hash=anchor.hash,
        )
        signature = self.key(signer or uri).sign(bytes(payload))
        raw, _ = runtime.encode_signed_extrinsic(
            data, public_key=key.public_key, signature=signature, signature_version=1, **fields
        )
        return bytes(raw)

    def submit(self, raw: bytes) -> bytes:
        statuses: list[Any] = []
        extrinsic_hash = self.chain.submit(raw, statuses.append)
        self.statuses[extrinsic_hash] = statuses
        return extrinsic_hash

    def refused(self, raw: bytes) -> str:
        """Submit what must be refused; return the reason."""
        with pytest.raises(TransactionRefused) as caught:
            self.chain.submit(raw)
        return caught.value.data

    def run(self, uri: str, pallet: str, function: str, **args: Any) -> Outcome:
        """Submit a call, make a block, return what became of it."""
        raw = self.sign(uri, (pallet, function, args))
        self.submit(raw)
        self.blocks(1)
        return self.outcome(raw)

    def outcome(self, raw: bytes) -> Outcome:
        block = self.chain.best
        index = block.extrinsics.index(raw)
        view = self.chain.state_at(block.number)
        events = [
            event for event in view.get("System", "Events") if event["extrinsic_idx"] == index
        ]
        last = events[-1]
        assert last["module_id"] == "System"
        if last["event_id"] == "ExtrinsicSuccess":
            return Outcome(block.number, None, events)
        error = last["attributes"]["dispatch_error"]
        if isinstance(error, str):
            return Outcome(block.number, error, events)
        if "Module" in error:
            module = error["Module"]
            number = int(module["error"][2:4], 16)
            name = self.codec.runtime.module_error(module["index"], number)[0]
            return Outcome(block.number, name, events)
        return Outcome(block.number, str(next(iter(error.values()))), events)

    def get(self, item: str, *params: Any) -> Any:
        return self.chain.state_at(self.chain.best.number).get("SubtensorModule", item, *params)

    def free(self, uri_or_address: str) -> int:
        address = uri_or_address
        if address.startswith("//"):
            address = self.address(address)
        view = self.chain.state_at(self.chain.best.number)
        return int(view.get("System", "Account", address)["data"]["free"])

    def sudo(self, function: str, **args: Any) -> Outcome:
        inner = self.codec.compose_call("AdminUtils", function, args)
        return self.run("//Alice", "Sudo", "sudo", call=inner)

    def register(self, coldkey: str, hotkey: str | None = None) -> Outcome:
        hotkey_ss58 = self.address(hotkey or f"{coldkey}//hotkey")
        return self.run(
            coldkey, "SubtensorModule", "burned_register", netuid=NETUID, hotkey=hotkey_ss58
        )


@pytest.fixture(scope="session")
def codec() -> Codec:
    if not DEFAULT_METADATA.is_file():
        pytest.skip(f"{DEFAULT_METADATA} is missing: python scripts/fetch_metadata.py")
    return Codec(patch_metadata(load_metadata(DEFAULT_METADATA), block_ms=BLOCK_MS))


@pytest.fixture
def net(codec: Codec) -> Harness:
    return Harness(codec, GenesisParams(tempo=10, block_ms=BLOCK_MS))


@pytest.fixture
def make_net(codec: Codec) -> Any:
    return lambda **params: Harness(codec, GenesisParams(block_ms=BLOCK_MS, **params))
