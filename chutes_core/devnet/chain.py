"""The chain: sealed blocks, their state, the pool, the finalized height, and who watches.

The one mutable object that `rpc` reads and `app` drives. Invariant: blocks are appended, never
replaced; the finalized head lags the best head by `FINALITY_LAG` blocks, so that a client that
does not wait for finality is found out.
"""

from collections.abc import Callable
from typing import Any

from loguru import logger

from chutes_core.devnet import accounts, genesis
from chutes_core.devnet.blocks import Block
from chutes_core.devnet.codec import Codec
from chutes_core.devnet.executor import BlockBuilder, Rules, validate
from chutes_core.devnet.extrinsics import TransactionRefused, decode_extrinsic
from chutes_core.devnet.genesis import GenesisParams
from chutes_core.devnet.pool import Pool, Pooled, Watcher
from chutes_core.devnet.state import Overlay, StateView, StateWriter, VersionedStore

FINALITY_LAG = 2
MAX_EXTRINSICS_PER_BLOCK = 512

Listener = Callable[[Block], None]


class Chain:
    """A devnet chain, from its genesis on.

    Args:
        codec: the runtime's types.
        params: what the genesis is made of.
        allow_private_axons: serve_axon takes private addresses.
    """

    def __init__(
        self, codec: Codec, params: GenesisParams, *, allow_private_axons: bool = True
    ) -> None:
        self.codec = codec
        self.params = params
        self.store = VersionedStore()
        self.pool = Pool()
        self.finalized_number = 0
        self.crashes = 0  # extrinsics that met a defect of the devnet itself
        self.on_best: list[Listener] = []
        self.on_finalized: list[Listener] = []
        overlay = Overlay(_Empty())
        genesis.write(StateWriter(codec, overlay), params)
        self.store.commit(0, overlay.changes())
        first = Block(
            number=0,
            parent_hash=bytes(32),
            state_root=genesis.state_root(params),
            extrinsics_root=genesis.extrinsics_root(codec, params),
            extrinsics=(),
        )
        self._blocks = [first]
        self._numbers = {first.hash: 0}
        self._included: dict[int, list[Pooled]] = {}
        self.rules = Rules(
            genesis_hash=first.hash,
            block_hash=self._hash_at,
            allow_private_axons=allow_private_axons,
        )

    @property
    def genesis_hash(self) -> bytes:
        """Hash of block 0."""
        return self._blocks[0].hash

    @property
    def best(self) -> Block:
        """The newest block."""
        return self._blocks[-1]

    @property
    def finalized(self) -> Block:
        """The newest block that will never be undone."""
        return self._blocks[self.finalized_number]

    def block_at(self, number: int) -> Block | None:
        """Return the block at a height, or None beyond the head."""
        return self._blocks[number] if 0 <= number < len(self._blocks) else None

    def block(self, block_hash: bytes) -> Block | None:
        """Return the block with a hash, or None."""
        number = self._numbers.get(block_hash)
        return None if number is None else self._blocks[number]

    def state_at(self, number: int) -> StateView:
        """Return the typed state at the end of a block.

        Raises:
            NotFound: ``state_discarded`` or ``no_such_block``.
        """
        return StateView(self.codec, self.store.at(number))

    def next_index(self, account: str) -> int:
        """Return the nonce for the account's next extrinsic, after those in the pool."""
        nonce = accounts.nonce(self.state_at(self.best.number), account)
        return self.pool.next_index(account, nonce)

    def submit(self, raw: bytes, watcher: Watcher | None = None) -> bytes:
        """Check an extrinsic and put it into the pool; return its hash.

        Raises:
            TransactionRefused: with the code and words that nodes use.
        """
        extrinsic = decode_extrinsic(self.codec, raw)
        state = self.state_at(self.best.number)
        block = self.best.number + 1
        validate(self.codec, self.rules, state, extrinsic, block=block)
        self.pool.add(
            extrinsic,
            expires=extrinsic.era.death(block),
            next_nonce=accounts.nonce(state, extrinsic.signer),
            watcher=watcher,
        )
        return extrinsic.hash

    def produce(self, now_ms: int) -> Block:
        """Build, seal and announce the next block, then finalize an older one."""
        builder = BlockBuilder(self.codec, self.rules, self.store.at(self.best.number), self.best)
        builder.begin(now_ms)
        included = self._fill(builder)
        block, changes = builder.seal()
        self.store.commit(block.number, changes)
        self._blocks.append(block)
        self._numbers[block.hash] = block.number
        self._included[block.number] = included
        for pooled in included:
            pooled.tell({"inBlock": "0x" + block.hash.hex()})
        self.pool.sweep(next_block=block.number + 1, nonce_of=self._best_nonce)
        for listener in tuple(self.on_best):
            listener(block)
        self._finalize()
        return block

    def _fill(self, builder: BlockBuilder) -> list[Pooled]:
        included: list[Pooled] = []
        for pooled in self.pool.ready(lambda signer: accounts.nonce(builder.state, signer)):
            if len(builder.extrinsics) >= MAX_EXTRINSICS_PER_BLOCK:
                break
            try:
                builder.apply(pooled.extrinsic)
            except TransactionRefused:
                self.pool.remove(pooled)
                pooled.tell("invalid")
            except Exception:  # noqa: BLE001 - one extrinsic that breaks us must not stop the chain
                logger.exception("an extrinsic could not be executed")
                self.crashes += 1
                self.pool.remove(pooled)
                pooled.tell("invalid")
            else:
                self.pool.remove(pooled)
                included.append(pooled)
        return included

    def _finalize(self) -> None:
        target = self.best.number - FINALITY_LAG
        while self.finalized_number < target:
            self.finalized_number += 1
            block = self.finalized
            status: Any = {"finalized": "0x" + block.hash.hex()}
            for pooled in self._included.pop(block.number, []):
                pooled.tell(status)
            for listener in tuple(self.on_finalized):
                listener(block)

    def _best_nonce(self, account: str) -> int:
        return accounts.nonce(self.state_at(self.best.number), account)

    def _hash_at(self, number: int) -> bytes | None:
        block = self.block_at(number)
        return None if block is None else block.hash


class _Empty:
    """The state before genesis."""

    def get(self, key: bytes) -> bytes | None:
        """Return None: nothing is set."""
        return None

    def keys(self, prefix: bytes, after: bytes | None = None) -> Any:
        """Yield nothing."""
        return iter(())
