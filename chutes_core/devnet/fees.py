"""What an extrinsic costs and who pays it.

Formula, fitted to a transfer recorded on runtime 461 (166,247 rao at 332,208,000 ps and 143
bytes): half a rao per nanosecond of weight plus one rao per byte. The weights of other calls are
rounded estimates. Invariant: the fee quoted by query_info is the fee charged.

Calls that a hotkey signs for its subnet are paid by the coldkey that owns the hotkey, as in the
runtime's fee filter.
"""

from collections.abc import Iterator

from chutes_core.devnet.codec import Codec
from chutes_core.devnet.dispatch import Call
from chutes_core.devnet.state import StateView

_PS_PER_RAO = 2_000
_PROOF_SIZE = 7_791
_DEFAULT_WEIGHT_PS = 300_000_000
_WEIGHTS_PS = {
    ("Balances", "transfer_keep_alive"): 332_208_000,
    ("Balances", "transfer_allow_death"): 332_208_000,
    ("Balances", "transfer_all"): 340_000_000,
    ("System", "remark"): 10_000_000,
    ("SubtensorModule", "burned_register"): 600_000_000,
    ("SubtensorModule", "register_limit"): 600_000_000,
    ("SubtensorModule", "set_weights"): 900_000_000,
    ("SubtensorModule", "set_mechanism_weights"): 900_000_000,
}
_COLDKEY_PAYS = frozenset(
    ("SubtensorModule", name)
    for name in (
        "set_weights",
        "set_mechanism_weights",
        "commit_weights",
        "reveal_weights",
        "commit_timelocked_weights",
        "commit_timelocked_mechanism_weights",
        "serve_axon",
        "serve_axon_tls",
        "serve_prometheus",
        "commit_mechanism_weights",
        "reveal_mechanism_weights",
        "batch_set_weights",
        "batch_commit_weights",
        "batch_reveal_weights",
    )
) | {("Commitments", "set_commitment")}
_WRAPPERS = {("Proxy", "proxy"), ("Utility", "batch"), ("Utility", "batch_all")} | {
    ("Utility", "force_batch"),
    ("Sudo", "sudo"),
    ("Sudo", "sudo_unchecked_weight"),
}


def dispatch_info(codec: Codec, call: Call, *, dispatch_class: str = "Normal") -> dict[str, object]:
    """Return the weight, class and fee flag that events and quotes carry."""
    weight = sum(
        _WEIGHTS_PS.get((leaf.pallet, leaf.function), _DEFAULT_WEIGHT_PS)
        for leaf in leaves(codec, call)
    )
    return {
        "weight": {"ref_time": weight, "proof_size": _PROOF_SIZE},
        "class": dispatch_class,
        "pays_fee": "Yes",
    }


def fee_rao(codec: Codec, call: Call, length: int) -> int:
    """Return the fee of a call inside an extrinsic of ``length`` bytes, without tip."""
    weight = dispatch_info(codec, call)["weight"]
    assert isinstance(weight, dict)
    return int(weight["ref_time"]) // _PS_PER_RAO + length


def fee_payer(codec: Codec, state: StateView, signer: str, call: Call) -> str:
    """Return the account that the fee is taken from."""
    pays = any((leaf.pallet, leaf.function) in _COLDKEY_PAYS for leaf in leaves(codec, call))
    if pays and state.has("SubtensorModule", "Owner", signer):
        return str(state.get("SubtensorModule", "Owner", signer))
    return signer


def leaves(codec: Codec, call: Call) -> Iterator[Call]:
    """Yield the calls that do something, inside batches, proxies and sudo."""
    if (call.pallet, call.function) not in _WRAPPERS:
        yield call
        return
    inner = call.args["calls"] if "calls" in call.args else [call.args["call"]]
    for nested in inner:
        yield from leaves(codec, codec.nested_call(nested))
