"""Setting weights in the clear.

Order of the checks, as on the chain: lengths, subnet and mechanism, uids count, registered,
stake, version key, rate limit, permit, duplicates, bounds, too few, maximum. Invariant: stored
weights refer to uids that exist and are upscaled so that the largest is 65535.
"""

from collections.abc import Sequence
from typing import Any

from chutes_core.devnet.dispatch import (
    Call,
    Context,
    DispatchFailure,
    Handler,
    ModuleFailure,
    Origin,
)
from chutes_core.devnet.pallets.subtensor import neurons, staking
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.state import StateView

U16_MAX = 65_535


def set_weights(context: Context, origin: Origin, call: Call) -> None:
    """Set the signer's weights of mechanism 0."""
    _set(context, origin.signed(), call, mechanism=0)


def set_mechanism_weights(context: Context, origin: Origin, call: Call) -> None:
    """Set the signer's weights of one mechanism."""
    _set(context, origin.signed(), call, mechanism=int(call.args["mecid"]))


def batch_set_weights(context: Context, origin: Origin, call: Call) -> None:
    """Set weights on several subnets; each succeeds or fails on its own, told by an event."""
    origin.signed()
    netuids, rows, keys = (call.args[name] for name in ("netuids", "weights", "version_keys"))
    if not len(netuids) == len(rows) == len(keys):
        raise ModuleFailure(PALLET, "InputLengthsUnequal")
    failed = False
    for netuid, row, key in zip(netuids, rows, keys, strict=True):
        args = {
            "netuid": int(netuid),
            "dests": [int(uid) for uid, _ in row],
            "weights": [int(weight) for _, weight in row],
            "version_key": int(key),
        }
        failed |= not try_call(context, origin, "set_weights", args)
    name = "BatchCompletedWithErrors" if failed else "BatchWeightsCompleted"
    context.events.deposit(PALLET, name, None if failed else (netuids, origin.signed()))


def try_call(context: Context, origin: Origin, function: str, args: dict[str, Any]) -> bool:
    """Dispatch one item of a batch of this pallet; deposit its failure and return False."""
    data = context.codec.compose_call(PALLET, function, args)
    try:
        context.dispatch(origin, context.codec.decode_call(data))
    except DispatchFailure as failure:
        fields = (args["netuid"], failure.value(context.codec))
        context.events.deposit(PALLET, "BatchWeightItemFailed", fields)
        return False
    return True


def _set(context: Context, hotkey: str, call: Call, *, mechanism: int) -> None:
    netuid = int(call.args["netuid"])
    if context.state.get(PALLET, "CommitRevealWeightsEnabled", netuid):
        raise ModuleFailure(PALLET, "CommitRevealEnabled")
    apply_weights(
        context,
        hotkey,
        netuid=netuid,
        mechanism=mechanism,
        uids=[int(uid) for uid in call.args["dests"]],
        values=[int(value) for value in call.args["weights"]],
        version_key=int(call.args["version_key"]),
        is_reveal=False,
    )


def apply_weights(
    context: Context,
    hotkey: str,
    *,
    netuid: int,
    mechanism: int,
    uids: Sequence[int],
    values: Sequence[int],
    version_key: int,
    is_reveal: bool,
) -> None:
    """Check and store one validator's weights.

    A reveal (``is_reveal``) was rate-limited when it was committed, and leaves LastUpdate.

    Raises:
        ModuleFailure: the first rule that is broken.
    """
    state = context.state
    if len(uids) != len(values):
        raise ModuleFailure(PALLET, "WeightVecNotEqualSize")
    check_mechanism(state, netuid, mechanism)
    if len(uids) > neurons.count(state, netuid):
        raise ModuleFailure(PALLET, "UidsLengthExceedUidsInSubNet")
    own_uid = check_sender(state, netuid, hotkey)
    if int(state.get(PALLET, "WeightsVersionKey", netuid)) > version_key:
        raise ModuleFailure(PALLET, "IncorrectWeightVersionKey")
    index = neurons.storage_index(netuid, mechanism)
    if not is_reveal and is_too_fast(state, netuid, index, own_uid, context.block):
        raise ModuleFailure(PALLET, "SettingWeightsTooFast")
    _check_vector(state, netuid, own_uid, uids, values)
    stored = list(zip(uids, upscale(values), strict=True))
    state.put(PALLET, "Weights", index, own_uid, stored)
    if not is_reveal:
        neurons.put_entry(state, "LastUpdate", index, own_uid, context.block)
    context.events.deposit(PALLET, "WeightsSet", (index, own_uid))


def check_mechanism(state: StateView, netuid: int, mechanism: int) -> None:
    """Insist that the subnet has the mechanism."""
    known = int(state.get(PALLET, "MechanismCountCurrent", netuid))
    if not neurons.exists(state, netuid) or mechanism >= known:
        raise ModuleFailure(PALLET, "MechanismDoesNotExist")


def check_sender(state: StateView, netuid: int, hotkey: str) -> int:
    """Insist on a registered hotkey with enough stake; return its uid."""
    uid = neurons.uid_of(state, netuid, hotkey)
    if uid is None:
        raise ModuleFailure(PALLET, "HotKeyNotRegisteredInSubNet")
    threshold = int(state.get(PALLET, "StakeThreshold"))
    if staking.hotkey_alpha(state, hotkey, netuid) < threshold:
        raise ModuleFailure(PALLET, "NotEnoughStakeToSetWeights")
    return uid


def is_too_fast(state: StateView, netuid: int, index: int, uid: int, block: int) -> bool:
    """Tell whether the neuron's last update is within the subnet's rate limit."""
    last = int(neurons.vector(state, "LastUpdate", index)[uid])
    limit = int(state.get(PALLET, "WeightsSetRateLimit", netuid))
    return last != 0 and block - last < limit


def _check_vector(
    state: StateView, netuid: int, own_uid: int, uids: Sequence[int], values: Sequence[int]
) -> None:
    is_self = list(uids) == [own_uid]
    if not is_self and not neurons.vector(state, "ValidatorPermit", netuid)[own_uid]:
        raise ModuleFailure(PALLET, "NeuronNoValidatorPermit")
    if len(set(uids)) != len(uids):
        raise ModuleFailure(PALLET, "DuplicateUids")
    if any(uid >= neurons.count(state, netuid) for uid in uids):
        raise ModuleFailure(PALLET, "UidVecContainInvalidOne")
    if is_self:
        return
    if len(uids) < int(state.get(PALLET, "MinAllowedWeights", netuid)):
        raise ModuleFailure(PALLET, "WeightVecLengthIsLow")
    limit = int(state.get(PALLET, "MaxWeightsLimit", netuid))
    if max(values, default=0) * U16_MAX > limit * sum(values):
        raise ModuleFailure(PALLET, "MaxWeightExceeded")


def upscale(values: Sequence[int]) -> list[int]:
    """Scale weights so that the largest becomes 65535, rounding half up.

    >>> upscale([1, 2]), upscale([0])
    ([32768, 65535], [0])
    """
    top = max(values, default=0)
    return [(2 * value * U16_MAX + top) // (2 * top) if top else 0 for value in values]


CALLS: dict[str, Handler] = {
    "set_weights": set_weights,
    "set_mechanism_weights": set_mechanism_weights,
    "batch_set_weights": batch_set_weights,
}
