"""Commitments: a small public record per hotkey and subnet.

Invariant: the stored info is byte for byte what was signed; only registered hotkeys have one.
"""

from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.scale import Reader

MAX_FIELDS = 3
MAX_SPACE_BYTES = 3_100

_CALL_INDEX_AND_NETUID_BYTES = 4


def set_commitment(context: Context, origin: Origin, call: Call) -> None:
    """Replace the signer's commitment on a subnet."""
    who, netuid = origin.signed(), int(call.args["netuid"])
    if not context.state.has("SubtensorModule", "Uids", netuid, who):
        raise ModuleFailure("Commitments", "AccountNotAllowedCommit")
    info = Reader(call.data, _CALL_INDEX_AND_NETUID_BYTES).rest()
    if Reader(info).compact() > MAX_FIELDS:
        raise ModuleFailure("Commitments", "TooManyFieldsInCommitmentInfo")
    _charge_space(context, netuid, who, len(info))
    deposit = (0).to_bytes(8, "little")
    record = deposit + context.block.to_bytes(4, "little") + info
    context.state.put_raw("Commitments", "CommitmentOf", netuid, who, record)
    context.state.put("Commitments", "LastCommitment", netuid, who, context.block)
    context.events.deposit("Commitments", "Commitment", {"netuid": netuid, "who": who})


def _charge_space(context: Context, netuid: int, who: str, size: int) -> None:
    epoch = int(context.state.get("SubtensorModule", "SubnetEpochIndex", netuid))
    usage = context.state.get("Commitments", "UsedSpaceOf", netuid, who)
    if usage is None or usage["last_epoch"] != epoch:
        usage = {"last_epoch": epoch, "used_space": 0}
    usage["used_space"] += max(100, size)  # a commitment counts as at least 100 bytes
    if usage["used_space"] > MAX_SPACE_BYTES:
        raise ModuleFailure("Commitments", "SpaceLimitExceeded")
    context.state.put("Commitments", "UsedSpaceOf", netuid, who, usage)


CALLS: dict[str, Handler] = {"set_commitment": set_commitment}
