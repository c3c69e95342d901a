"""AdminUtils: root sets subnet parameters, through Sudo.sudo.

Invariant: each setter writes one storage item and nothing else; those with a netuid insist that
the subnet exists.
"""

from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin

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
_GLOBAL_SETTERS = {"sudo_set_stake_threshold": "StakeThreshold"}


def _subnet_setter(item: str) -> Handler:
    def handle(context: Context, origin: Origin, call: Call) -> None:
        origin.root()
        netuid, value = call.args.values()
        if not context.state.get("SubtensorModule", "NetworksAdded", netuid):
            raise ModuleFailure("AdminUtils", "SubnetDoesNotExist")
        context.state.put("SubtensorModule", item, netuid, value)

    return handle


def _global_setter(item: str) -> Handler:
    def handle(context: Context, origin: Origin, call: Call) -> None:
        origin.root()
        [value] = call.args.values()
        context.state.put("SubtensorModule", item, value)

    return handle


CALLS: dict[str, Handler] = {
    **{name: _subnet_setter(item) for name, item in _SUBNET_SETTERS.items()},
    **{name: _global_setter(item) for name, item in _GLOBAL_SETTERS.items()},
}
