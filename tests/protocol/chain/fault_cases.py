"""Everything that the devnet can let go wrong, as cases that money and weights live through."""

from dataclasses import dataclass, field

LAST = "spec_version"  # it stays, and costs everybody a new decoding of the metadata


@dataclass(frozen=True)
class Case:
    """One fault, and when it is in force.

    Args:
        kind: the devnet's name for it.
        options: of the fault.
        on: ``world`` (while blocks are read and money is sent), ``extrinsics`` (of refund and
            sweep), or ``rounds`` (anew before each round).
        codes: what the loops must have said.
        stands: nothing may be credited or paid while it lasts.
        foreign: the key was used by somebody else, so that nothing more is signed.
        late: it would undo the stranger's own transfer; it is in force for refund and sweep only.
    """

    kind: str
    options: dict = field(default_factory=dict)
    on: str = "world"
    codes: tuple[str, ...] = ()
    stands: bool = False
    foreign: bool = False
    late: bool = False

    def begin(self, controls, *signers):
        """Let it go wrong from now on; what is in force anew each round begins there."""
        if self.on == "extrinsics":
            for signer in signers:
                controls.fault(self.kind, signer=signer, **self.options)
        elif self.on == "world":
            controls.fault(self.kind, **self.options)

    @property
    def ends_by_itself(self):
        """Tell whether it catches so many extrinsics and no more."""
        return self.on == "extrinsics" and self.kind != "delay_extrinsic"

    def __str__(self):
        return "-".join([self.kind, *(f"{k}={v}" for k, v in self.options.items())])


SUBMIT = {"method": "author_submitExtrinsic", "times": 2}
CASES = (
    Case("drop_connections", on="rounds"),
    Case("refuse_connections", codes=("chain_unreachable",), stands=True),
    Case("lose_answer", {**SUBMIT}),
    Case("lose_answer", {**SUBMIT, "processed": False}),
    Case("lose_answer", {**SUBMIT, "times": 1, "close": False}),
    Case("lose_answer", {"method": "chain_getBlock", "times": 3}),
    Case("stall_blocks", stands=True),
    Case("stall_finality", stands=True),
    Case("refuse_extrinsic", on="extrinsics"),
    Case("delay_extrinsic", {"blocks": 3}, on="extrinsics"),
    Case("delay_extrinsic", {}, on="extrinsics"),
    Case("evict_extrinsic", on="extrinsics"),
    Case("evict_extrinsic", {"silent": True}, on="extrinsics"),
    Case("fail_extrinsic", on="extrinsics"),
    Case("expire_era", on="extrinsics"),
    Case("take_nonce", on="extrinsics", codes=("foreign_nonce",), foreign=True),
    Case("retract_blocks", {"blocks": 1}, on="rounds"),
    Case("retract_blocks", {"blocks": 1, "lose": True}, on="rounds", late=True),
    Case("prune_state", {"blocks": 1}),
    Case("spec_version", {"spec": 990}),
)
