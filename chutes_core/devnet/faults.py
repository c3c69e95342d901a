"""What a test may make go wrong: the switches and rules that the chain and the server obey.

Path: `dev_fault` -> `development` -> here; `chain`, `rpc` and `server` ask here. A devnet without
--dev-controls has one of these too, always empty. Invariant: a fault changes what a real network
could do as well (lose, delay, refuse, forget), and `heal` ends every one that lasts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from chutes_core.base.errors import Invalid
from chutes_core.devnet.extrinsics import Extrinsic, TransactionRefused

LASTING = frozenset({"stall_blocks", "stall_finality", "refuse_connections"})
RULES = frozenset(
    {
        *("refuse_extrinsic", "delay_extrinsic", "evict_extrinsic"),
        *("fail_extrinsic", "expire_era", "take_nonce"),
    }
)
FAULT_KINDS = frozenset(
    {
        *(LASTING | RULES),
        *("drop_connections", "lose_answer", "prune_state", "spec_version", "retract_blocks"),
    }
)
"""Everything that can be made to go wrong; tests that must survive all of it walk this."""


@dataclass
class Selector:
    """Which extrinsics or requests a rule catches, and how often still.

    Args:
        signer: SS58 address, None for anyone.
        call: ``Pallet.function``, None for any.
        times: how often still; None without end.
    """

    signer: str | None = None
    call: str | None = None
    times: int | None = 1

    def catches(self, extrinsic: Extrinsic) -> bool:
        """Tell whether the extrinsic is meant; does not use the rule up."""
        name = f"{extrinsic.call.pallet}.{extrinsic.call.function}"
        return (
            self.times != 0
            and self.signer in {None, extrinsic.signer}
            and self.call in {None, name}
        )

    def use(self) -> None:
        """Count one use."""
        if self.times is not None:
            self.times -= 1


@dataclass
class SubmitRule:
    """What happens to an extrinsic that is submitted.

    Args:
        kind: ``refuse_extrinsic``, ``delay_extrinsic``, ``evict_extrinsic``, ``take_nonce``,
            ``fail_extrinsic`` or ``expire_era``.
        selector: which extrinsics.
        refusal: the error to answer with.
        blocks: how long it is kept out of blocks; None until healed.
        silent: the watcher is not told of an eviction.
    """

    kind: str
    selector: Selector
    refusal: tuple[int, str, str] = (1010, "Invalid Transaction", "refused by a devnet fault")
    blocks: int | None = None
    silent: bool = False


@dataclass
class Loss:
    """An answer that does not arrive.

    Args:
        method: JSON-RPC method, None for any.
        times: how often still; None without end.
        processed: the request is carried out, only its answer is lost.
        close: the connection breaks; otherwise the client waits in vain.
    """

    method: str | None = None
    times: int | None = 1
    processed: bool = True
    close: bool = True


@dataclass
class Faults:
    """All faults of one devnet."""

    stall_blocks: bool = False
    stall_finality: bool = False
    refuse_connections: bool = False
    kept_state_blocks: int | None = None
    submit_rules: list[SubmitRule] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    on_drop: list[Callable[[], int]] = field(default_factory=list)
    forged: set[bytes] = field(default_factory=set)
    failing: set[bytes] = field(default_factory=set)

    def drop_connections(self) -> int:
        """Break every open websocket without a closing frame; return how many there were."""
        return sum(drop() for drop in self.on_drop)

    def check_refused(self, extrinsic: Extrinsic) -> None:
        """Refuse an extrinsic that a rule is set on.

        Raises:
            TransactionRefused: as the rule says.
        """
        rule = self.take_rule(extrinsic, "refuse_extrinsic")
        if rule is not None:
            raise TransactionRefused(*rule.refusal)

    def take_rule(self, extrinsic: Extrinsic, *kinds: str) -> SubmitRule | None:
        """Use and return the first rule of these kinds that catches the extrinsic."""
        for rule in self.submit_rules:
            if rule.kind in kinds and rule.selector.catches(extrinsic):
                rule.selector.use()
                self.submit_rules = [r for r in self.submit_rules if r.selector.times != 0]
                return rule
        return None

    def take_loss(self, methods: Iterable[str]) -> Loss | None:
        """Use and return the first loss that catches one of a message's methods."""
        asked = {method for method in methods if not method.startswith("dev_")}
        for loss in self.losses:
            if asked and (loss.method is None or loss.method in asked):
                if loss.times is not None:
                    loss.times -= 1
                self.losses = [one for one in self.losses if one.times != 0]
                return loss
        return None

    def heal(self, kind: str | None = None) -> None:
        """End one kind of fault that lasts, or all of them.

        Raises:
            Invalid: ``fault_unknown`` for a kind that does not last or does not exist.
        """
        known = {*LASTING, *RULES, "prune_state", "lose_answer"}
        if kind is not None and kind not in known:
            raise Invalid("fault_unknown", f"{kind} is no fault that lasts: {sorted(known)}")
        chosen = known if kind is None else {kind}
        for name in chosen & LASTING:
            setattr(self, name, False)
        if "prune_state" in chosen:
            self.kept_state_blocks = None
        if "lose_answer" in chosen:
            self.losses = []
        self.submit_rules = [rule for rule in self.submit_rules if rule.kind not in chosen]
        if kind is None or "fail_extrinsic" in chosen:
            self.failing.clear()

    def active(self) -> list[str]:
        """Return the kinds that are in force, sorted."""
        names = {rule.kind for rule in self.submit_rules}
        names |= {"lose_answer"} if self.losses else set()
        names |= {"prune_state"} if self.kept_state_blocks is not None else set()
        for name in LASTING:
            names |= {name} if getattr(self, name) else set()
        return sorted(names)
