"""Builds one block: initialisation, inherents, signed extrinsics, sealing.

Path: pool -> `BlockBuilder.apply` -> state changes and events of the block. Invariant: an
extrinsic that is included pays its fee and uses its nonce whether its call succeeds or not, and a
call that fails leaves nothing else behind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chutes_core.base.errors import Invalid
from chutes_core.devnet import accounts, epoch, fees
from chutes_core.devnet.blocks import Block
from chutes_core.devnet.codec import Codec, blake2_256
from chutes_core.devnet.dispatch import (
    Call,
    Context,
    DispatchFailure,
    ModuleFailure,
    Origin,
    OtherFailure,
    TokenFailure,
)
from chutes_core.devnet.events import EventLog
from chutes_core.devnet.extrinsics import (
    CANNOT_PAY,
    OUTDATED,
    Extrinsic,
    TransactionRefused,
    check_signature,
    decode_extrinsic,
    inherent,
    invalid_transaction,
)
from chutes_core.devnet.faults import Faults
from chutes_core.devnet.pallets import handler_of
from chutes_core.devnet.pallets.mev_shield import ciphertext
from chutes_core.devnet.shield import ROTATE_BLOCKS, ShieldKeys
from chutes_core.devnet.state import KeyValue, Overlay, StateView, StateWriter
from chutes_core.devnet.version import SPEC_NAME, RuntimeVersion

BLOCK_HASH_COUNT = 4_096  # heights whose hash the state remembers

_SHIELDED_CALL = ("MevShield", "submit_encrypted")


@dataclass(frozen=True)
class Rules:
    """What validity depends on besides the state.

    Args:
        genesis_hash: bound by every signature.
        block_hash: hash of a sealed block by height, None when unknown.
        version: runtime version by height.
        faults: which signatures are taken unseen, which calls fail.
        shield: opens shielded extrinsics.
        allow_private_axons: serve_axon takes private addresses.
    """

    genesis_hash: bytes
    block_hash: Callable[[int], bytes | None]
    version: Callable[[int], RuntimeVersion]
    faults: Faults = field(default_factory=Faults)
    shield: ShieldKeys = field(default_factory=ShieldKeys)
    allow_private_axons: bool = True


def validate(
    codec: Codec, rules: Rules, state: StateView, extrinsic: Extrinsic, *, block: int
) -> None:
    """Check all but a future nonce, as of ``block``, the block that would include it.

    Raises:
        TransactionRefused: unknown call, signature, used nonce, or no money for the fee.
    """
    try:
        for leaf in fees.leaves(codec, extrinsic.call):
            if handler_of(leaf.pallet, leaf.function) is None:
                raise invalid_transaction(
                    f"Transaction call is not expected: devnet has no {leaf.pallet}.{leaf.function}"
                )
    except Invalid as error:
        raise TransactionRefused(1001, "Extrinsic has invalid format", error.message) from error
    if extrinsic.hash not in rules.faults.forged:
        check_signature(
            extrinsic,
            genesis_hash=rules.genesis_hash,
            version=rules.version(block),
            block=block,
            block_hash=rules.block_hash,
        )
    if extrinsic.nonce < accounts.nonce(state, extrinsic.signer):
        raise invalid_transaction(OUTDATED)
    payer = fees.fee_payer(codec, state, extrinsic.signer, extrinsic.call)
    cost_rao = fees.fee_rao(codec, extrinsic.call, len(extrinsic.raw)) + extrinsic.tip
    if accounts.free_rao(state, payer) < cost_rao + accounts.EXISTENTIAL_DEPOSIT_RAO:
        raise invalid_transaction(CANNOT_PAY)


class BlockBuilder:
    """The block on top of ``parent``.

    Args:
        base: the parent's state.
    """

    def __init__(self, codec: Codec, rules: Rules, base: KeyValue, parent: Block) -> None:
        self.codec = codec
        self.rules = rules
        self.parent = parent
        self.number = parent.number + 1
        self.events = EventLog()
        self.overlay = Overlay(base)
        self.state = StateWriter(codec, self.overlay)
        self.extrinsics: list[bytes] = []
        self.epochs: list[int] = []
        self._context = Context(
            state=self.state,
            events=self.events,
            codec=codec,
            block=self.number,
            allow_private_axons=rules.allow_private_axons,
            dispatch=self._dispatch,
        )

    def begin(self, now_ms: int, storage: Mapping[bytes, bytes | None]) -> None:
        """Initialise the block, set ``storage`` by force, apply the inherents."""
        state = self.state
        state.put("System", "Number", self.number)
        state.put("System", "ParentHash", self.parent.hash)
        state.put("System", "BlockHash", self.parent.number, self.parent.hash)
        if self.number > BLOCK_HASH_COUNT:
            state.remove("System", "BlockHash", self.number - BLOCK_HASH_COUNT - 1)
        self.epochs = epoch.step(state, self.events, self.number)
        self._inherent("Timestamp", "set", {"now": now_ms})
        for key, value in storage.items():
            self.overlay.set(key, value)
        new, old = self.rules.version(self.number + 1), self.rules.version(self.number)
        if new != old:
            upgrade = {"spec_version": new.spec, "spec_name": SPEC_NAME}
            state.put("System", "LastRuntimeUpgrade", upgrade)
            self.events.deposit("System", "CodeUpdated")
        if self.number % ROTATE_BLOCKS == 1 or self.rules.shield.is_empty:
            key = self.rules.shield.rotate()
            self._inherent("MevShield", "announce_next_key", {"enc_key": key})

    def apply(self, extrinsic: Extrinsic) -> list[Extrinsic]:
        """Include a signed extrinsic, and the one it shields; return those included.

        Raises:
            TransactionRefused: it is not valid in this block; nothing has changed.
        """
        self._apply_one(extrinsic)
        if (extrinsic.call.pallet, extrinsic.call.function) != _SHIELDED_CALL:
            return [extrinsic]
        opened = self.rules.shield.open(ciphertext(extrinsic.call))
        if opened is None:
            return [extrinsic]
        try:
            inner = decode_extrinsic(self.codec, opened)
            self._apply_one(inner)
        except TransactionRefused:
            return [extrinsic]  # the carrier has paid; its content never happens
        return [extrinsic, inner]

    def seal(self) -> tuple[Block, dict[bytes, bytes | None]]:
        """End the block; return it with its changes to the state."""
        state, records = self.state, self.events.records()
        state.put_raw("System", "Events", self.codec.encode_events(records))
        state.put("System", "EventCount", len(records))
        changes = self.overlay.changes()
        flat = b"".join(key + (value or b"") for key, value in sorted(changes.items()))
        block = Block(
            number=self.number,
            parent_hash=self.parent.hash,
            state_root=blake2_256(self.parent.state_root + flat),
            extrinsics_root=blake2_256(b"".join(self.extrinsics)),
            extrinsics=tuple(self.extrinsics),
        )
        return block, changes

    def _apply_one(self, extrinsic: Extrinsic) -> None:
        mark = self.events.mark()
        self.overlay.begin()
        try:
            self._execute(extrinsic)
        except BaseException:
            self.overlay.rollback_to_base()
            self.events.rewind(mark)
            raise
        self.overlay.commit()
        self.extrinsics.append(extrinsic.raw)

    def _execute(self, extrinsic: Extrinsic) -> None:
        state, call = self.state, extrinsic.call
        validate(self.codec, self.rules, state, extrinsic, block=self.number)
        if extrinsic.nonce != accounts.nonce(state, extrinsic.signer):
            raise invalid_transaction("Transaction will be valid in the future")
        self.events.set_extrinsic(len(self.extrinsics))
        payer = fees.fee_payer(self.codec, state, extrinsic.signer, call)
        fee_rao = fees.fee_rao(self.codec, call, len(extrinsic.raw))
        charged = fee_rao + extrinsic.tip
        try:
            accounts.take(state, self.events, payer, charged, keep_alive=True)
        except TokenFailure as failure:  # validate() has made sure of it
            raise invalid_transaction(CANNOT_PAY) from failure
        self.events.deposit("Balances", "Withdraw", {"who": payer, "amount": charged})
        accounts.bump_nonce(state, extrinsic.signer)
        if extrinsic.hash in self.rules.faults.failing:
            failure_value: object = OtherFailure().value(self.codec)
        else:
            failure_value = self._run(Origin(extrinsic.signer), call)
        self.events.deposit("Balances", "Deposit", {"who": payer, "amount": 0})  # fee refund
        self.events.deposit(
            "TransactionPayment",
            "TransactionFeePaid",
            {"who": payer, "actual_fee": charged, "tip": extrinsic.tip},
        )
        self._outcome(failure_value, fees.dispatch_info(self.codec, call))

    def _inherent(self, pallet: str, function: str, args: dict[str, object]) -> None:
        call = self.codec.decode_call(self.codec.compose_call(pallet, function, args))
        self.events.set_extrinsic(len(self.extrinsics))
        self._dispatch(Origin(), call)
        self._outcome(None, fees.dispatch_info(self.codec, call, dispatch_class="Mandatory"))
        self.extrinsics.append(inherent(call.data))

    def _run(self, origin: Origin, call: Call) -> object:
        try:
            self._dispatch(origin, call)
        except DispatchFailure as failure:
            return failure.value(self.codec)
        return None

    def _dispatch(self, origin: Origin, call: Call) -> None:
        handler = handler_of(call.pallet, call.function)
        if handler is None:
            raise ModuleFailure("System", "CallFiltered")
        mark = self.events.mark()
        self.overlay.begin()
        try:
            handler(self._context, origin, call)
        except DispatchFailure:
            self.overlay.rollback()
            self.events.rewind(mark)
            raise
        self.overlay.commit()

    def _outcome(self, failure: object, info: dict[str, object]) -> None:
        if failure is None:
            self.events.deposit("System", "ExtrinsicSuccess", {"dispatch_info": info})
            return
        fields = {"dispatch_error": failure, "dispatch_info": info}
        self.events.deposit("System", "ExtrinsicFailed", fields)
