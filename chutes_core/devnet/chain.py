"""The chain: sealed blocks, their state, the pool, the finalized height, and who watches.

The one mutable object that `rpc` reads and `author` drives. Invariant: finalized blocks are never
replaced, and without a fault none is; the finalized head lags the best head by `FINALITY_LAG`
blocks, so that a client that does not wait for finality is found out.
"""

from collections.abc import Callable, Mapping
from typing import Any

from loguru import logger

from chutes_core.devnet import accounts, genesis
from chutes_core.devnet.blocks import Block
from chutes_core.devnet.codec import Codec
from chutes_core.devnet.executor import BlockBuilder, Rules, validate
from chutes_core.devnet.extrinsics import TransactionRefused, decode_extrinsic, forge
from chutes_core.devnet.faults import Faults
from chutes_core.devnet.genesis import GenesisParams
from chutes_core.devnet.pool import Pool, Pooled, Watcher
from chutes_core.devnet.state import Overlay, StateView, StateWriter, VersionedStore
from chutes_core.devnet.statefile import Saved, StateFile
from chutes_core.devnet.version import RuntimeVersion, VersionHistory

FINALITY_LAG = 2
MAX_EXTRINSICS_PER_BLOCK = 512

Listener = Callable[[Block], None]


class Chain:
    """A devnet chain, from its genesis on.

    Args:
        codec: the runtime's types.
        params: what the genesis is made of.
        allow_private_axons: serve_axon takes private addresses.
        file: keeps the chain; what it holds already is taken up.

    Raises:
        Invalid: ``state_differs``: the file is another chain's.
    """

    def __init__(
        self,
        codec: Codec,
        params: GenesisParams,
        *,
        allow_private_axons: bool = True,
        file: StateFile | None = None,
    ) -> None:
        self.codec = codec
        self.params = params
        self.store = VersionedStore()
        self.pool = Pool()
        self.finalized_number = 0
        self.crashes = 0  # extrinsics that met a defect of the devnet itself
        self.faults = Faults()
        metadata = codec.metadata
        self.versions = VersionHistory(
            RuntimeVersion(metadata.spec_version, metadata.transaction_version)
        )
        self.on_version: list[Callable[[RuntimeVersion], None]] = []
        self.on_best: list[Listener] = []
        self.on_finalized: list[Listener] = []
        first = Block(
            number=0,
            parent_hash=bytes(32),
            state_root=genesis.state_root(params),
            extrinsics_root=genesis.extrinsics_root(codec, params),
            extrinsics=(),
        )
        self._file = file
        self._blocks: list[Block] = []
        self._numbers: dict[bytes, int] = {}
        saved = None if file is None else file.load(first.hash)
        if saved is None:
            overlay = Overlay(_Empty())
            genesis.write(StateWriter(codec, overlay), params)
            self._append(first, overlay.changes(), finalized_number=0)
        else:
            self._resume(saved)
        self._included: dict[int, list[Pooled]] = {}
        self.rules = Rules(
            genesis_hash=first.hash,
            block_hash=self._hash_at,
            version=self.versions.at,
            faults=self.faults,
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

    @property
    def now_ms(self) -> int:
        """Time of the newest block; 0 at genesis."""
        return int(self.state_at(self.best.number).get("Timestamp", "Now"))

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
        self.faults.check_refused(extrinsic)
        pooled = self.pool.add(
            extrinsic,
            expires=extrinsic.era.death(block),
            next_nonce=accounts.nonce(state, extrinsic.signer),
            watcher=watcher,
        )
        if self.faults.submit_rules:
            self._disturb(pooled)
        return extrinsic.hash

    def take_nonce(self, signer: str, nonce: int | None = None) -> bytes:
        """Let somebody else's remark use a nonce of ``signer``; return the remark's hash.

        It goes before everything that waits and replaces what has the same nonce. Its signature is
        empty: no client checks those inside blocks.

        Raises:
            TransactionRefused: the account cannot pay for it, or the nonce is used.
        """
        state = self.state_at(self.best.number)
        if nonce is None:
            nonce = accounts.nonce(state, signer)
        remark = self.codec.compose_call("System", "remark", {"remark": b"another signer"})
        forged = forge(self.codec, signer=signer, nonce=nonce, call=remark)
        self.faults.forged.add(forged.hash)
        validate(self.codec, self.rules, state, forged, block=self.best.number + 1)
        self.pool.usurp(forged)
        return forged.hash

    def _disturb(self, pooled: Pooled) -> None:
        extrinsic = pooled.extrinsic
        rule = self.faults.take_rule(extrinsic, "delay_extrinsic", "expire_era")
        if rule is not None:
            blocks = float("inf") if rule.blocks is None else rule.blocks
            pooled.held_until = self.best.number + 1 + blocks
        if self.faults.take_rule(extrinsic, "fail_extrinsic") is not None:
            self.faults.failing.add(extrinsic.hash)
        if self.faults.take_rule(extrinsic, "take_nonce") is not None:
            self.take_nonce(extrinsic.signer, extrinsic.nonce)
        rule = self.faults.take_rule(extrinsic, "evict_extrinsic")
        if rule is not None:
            self.evict(pooled, silent=rule.silent)

    def evict(self, pooled: Pooled, *, silent: bool = False) -> None:
        """Throw a waiting extrinsic out of the pool."""
        self.pool.remove(pooled)
        if not silent:
            pooled.tell("dropped")

    def change_version(self, version: RuntimeVersion) -> None:
        """Let the next block upgrade the runtime: what comes after it needs ``version``."""
        self.versions.change(self.best.number + 2, version)

    def retract(self, count: int, *, lose: bool) -> int:
        """Undo the newest blocks, finalized ones excepted; return how many.

        Their extrinsics wait in the pool again, or are lost.
        """
        undone = 0
        while undone < count and self.best.number > self.finalized_number:
            block = self._blocks.pop()
            del self._numbers[block.hash]
            self.store.rewind(self.best.number)
            if self._file is not None:
                self._file.rewind(self.best.number)
            for pooled in self._included.pop(block.number, []):
                pooled.tell({"retracted": "0x" + block.hash.hex()})
                if not lose:
                    self.pool.restore(pooled)
            undone += 1
        return undone

    def produce(self, now_ms: int, storage: Mapping[bytes, bytes | None] | None = None) -> Block:
        """Build, seal and announce the next block, then finalize an older one.

        Args:
            now_ms: the block's time.
            storage: raw keys set by force before anything else, None to remove one.
        """
        builder = BlockBuilder(self.codec, self.rules, self.store.at(self.best.number), self.best)
        builder.begin(now_ms, storage or {})
        included = self._fill(builder)
        block, changes = builder.seal()
        self._append(block, changes, finalized_number=self._next_finalized(block.number))
        self._included[block.number] = included
        for pooled in included:
            pooled.tell({"inBlock": "0x" + block.hash.hex()})
        self.pool.sweep(next_block=block.number + 1, nonce_of=self._best_nonce)
        for listener in tuple(self.on_best):
            listener(block)
        version = self.versions.at(block.number + 1)
        if version != self.versions.at(block.number):
            for told in tuple(self.on_version):
                told(version)
        self._finalize()
        return block

    def _append(
        self, block: Block, changes: Mapping[bytes, bytes | None], *, finalized_number: int
    ) -> None:
        if self._file is not None:
            self._file.append(
                block, changes, finalized_number=finalized_number, versions=self.versions
            )
        self._link(block, changes)

    def _link(self, block: Block, changes: Mapping[bytes, bytes | None]) -> None:
        self.store.commit(block.number, changes)
        self._blocks.append(block)
        self._numbers[block.hash] = block.number

    def _resume(self, saved: Saved) -> None:
        assert self._file is not None
        for block in saved.blocks:
            self._link(block, saved.changes.get(block.number, {}))
        for start, version in self._file.versions():
            self.versions.change(start, version)
        self.finalized_number = saved.finalized_number

    def _next_finalized(self, best: int) -> int:
        if self.faults.stall_finality:
            return self.finalized_number
        return max(self.finalized_number, best - FINALITY_LAG)

    def _fill(self, builder: BlockBuilder) -> list[Pooled]:
        included: list[Pooled] = []
        for pooled in self.pool.ready(lambda signer: accounts.nonce(builder.state, signer)):
            if len(builder.extrinsics) >= MAX_EXTRINSICS_PER_BLOCK:
                break
            if pooled.held_until > builder.number:
                continue
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
        target = self._next_finalized(self.best.number)
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
