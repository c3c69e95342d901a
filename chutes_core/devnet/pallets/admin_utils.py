"""AdminUtils: root (through Sudo.sudo) or, for some, the subnet's owner sets its parameters.

Invariant: each setter writes one storage item, those with a netuid insist that the subnet exists,
and the burn stays within its bounds when they move.
"""

from chutes_core.devnet.dispatch import BadOrigin, Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.pallets.subtensor.neurons import PALLET

# call -> storage item of SubtensorModule, keyed by netuid
_SUBNET_SETTERS = {
    "sudo_set_tempo": "Tempo",
    "sudo_set_serving_rate_limit": "ServingRateLimit",
    "sudo_set_weights_version_key": "WeightsVersionKey",
    "sudo_set_weights_set_rate_limit": "WeightsSetRateLimit",
    "sudo_set_immunity_period": "ImmunityPeriod",
    "sudo_set_min_allowed_weights": "MinAllowedWeights",
    "sudo_set_max_allowed_uids": "MaxAllowedUids",
    "sudo_set_max_allowed_validators": "MaxAllowedValidators",
    "sudo_set_activity_cutoff": "ActivityCutoff",
    "sudo_set_network_registration_allowed": "NetworkRegistrationAllowed",
    "sudo_set_min_burn": "MinBurn",
    "sudo_set_max_burn": "MaxBurn",
    "sudo_set_commit_reveal_weights_enabled": "CommitRevealWeightsEnabled",
    "sudo_set_commit_reveal_weights_interval": "RevealPeriodEpochs",
}
_OWNER_MAY = frozenset(
    (
        *("sudo_set_serving_rate_limit", "sudo_set_weights_version_key"),
        *("sudo_set_immunity_period", "sudo_set_min_allowed_weights"),
        *("sudo_set_activity_cutoff", "sudo_set_min_burn", "sudo_set_max_burn"),
        *("sudo_set_commit_reveal_weights_enabled", "sudo_set_commit_reveal_weights_interval"),
    )
)
_GLOBAL_SETTERS = {"sudo_set_stake_threshold": "StakeThreshold"}


def _subnet_setter(item: str) -> Handler:
    def handle(context: Context, origin: Origin, call: Call) -> None:
        netuid, value = call.args.values()
        if call.function not in _OWNER_MAY or origin.is_root:
            origin.root()
        elif origin.signed() != context.state.get(PALLET, "SubnetOwner", netuid):
            raise BadOrigin
        if not context.state.get(PALLET, "NetworksAdded", netuid):
            raise ModuleFailure("AdminUtils", "SubnetDoesNotExist")
        context.state.put(PALLET, item, netuid, value)
        if item in {"MinBurn", "MaxBurn"}:
            _clamp_burn(context, netuid)

    return handle


def _clamp_burn(context: Context, netuid: int) -> None:
    low, high, burn = (
        int(context.state.get(PALLET, item, netuid)) for item in ("MinBurn", "MaxBurn", "Burn")
    )
    context.state.put(PALLET, "Burn", netuid, max(low, min(burn, high)))


def _global_setter(item: str) -> Handler:
    def handle(context: Context, origin: Origin, call: Call) -> None:
        origin.root()
        [value] = call.args.values()
        context.state.put(PALLET, item, value)

    return handle


CALLS: dict[str, Handler] = {
    **{name: _subnet_setter(item) for name, item in _SUBNET_SETTERS.items()},
    **{name: _global_setter(item) for name, item in _GLOBAL_SETTERS.items()},
}
