"""AdminUtils: root (through Sudo.sudo) or, for some, the subnet's owner sets its parameters.

Invariant: each setter writes one storage item, those with a netuid insist that the subnet exists,
and the burn stays within its bounds when they move. Simplified: an owner's changes have no rate
limit and no freeze window, and an item's own bounds are not checked.
"""

from chutes_core.devnet.dispatch import BadOrigin, Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.pallets.subtensor import neurons
from chutes_core.devnet.pallets.subtensor.neurons import PALLET

# call without "sudo_set_" -> storage item of SubtensorModule, keyed by netuid
_SUBNET_SETTERS = {
    "activity_cutoff": "ActivityCutoff",
    "activity_cutoff_factor": "ActivityCutoffFactorMilli",
    "adjustment_alpha": "AdjustmentAlpha",
    "adjustment_interval": "AdjustmentInterval",
    "alpha_sigmoid_steepness": "AlphaSigmoidSteepness",
    "bonds_moving_average": "BondsMovingAverage",
    "bonds_penalty": "BondsPenalty",
    "bonds_reset_enabled": "BondsResetOn",
    "burn_half_life": "BurnHalfLife",
    "burn_increase_mult": "BurnIncreaseMult",
    "commit_reveal_weights_enabled": "CommitRevealWeightsEnabled",
    "commit_reveal_weights_interval": "RevealPeriodEpochs",
    "difficulty": "Difficulty",
    "ema_price_halving_period": "EMAPriceHalvingBlocks",
    "immunity_period": "ImmunityPeriod",
    "kappa": "Kappa",
    "liquid_alpha_enabled": "LiquidAlphaOn",
    "max_allowed_uids": "MaxAllowedUids",
    "max_allowed_validators": "MaxAllowedValidators",
    "max_burn": "MaxBurn",
    "max_difficulty": "MaxDifficulty",
    "max_registrations_per_block": "MaxRegistrationsPerBlock",
    "mechanism_count": "MechanismCountCurrent",
    "mechanism_emission_split": "MechanismEmissionSplit",
    "min_allowed_uids": "MinAllowedUids",
    "min_allowed_weights": "MinAllowedWeights",
    "min_burn": "MinBurn",
    "min_difficulty": "MinDifficulty",
    "min_non_immune_uids": "MinNonImmuneUids",
    "network_pow_registration_allowed": "NetworkPowRegistrationAllowed",
    "network_registration_allowed": "NetworkRegistrationAllowed",
    "owner_immune_neuron_limit": "ImmuneOwnerUidsLimit",
    "rao_recycled": "RAORecycledForRegistration",
    "recycle_or_burn": "RecycleOrBurn",
    "rho": "Rho",
    "serving_rate_limit": "ServingRateLimit",
    "sn_owner_hotkey": "SubnetOwnerHotkey",
    "subtoken_enabled": "SubtokenEnabled",
    "target_registrations_per_interval": "TargetRegistrationsPerInterval",
    "tempo": "Tempo",
    "toggle_transfer": "TransferToggle",
    "weights_set_rate_limit": "WeightsSetRateLimit",
    "weights_version_key": "WeightsVersionKey",
    "yuma3_enabled": "Yuma3On",
}
_OWNER_MAY = frozenset(
    (
        *("activity_cutoff", "activity_cutoff_factor", "adjustment_alpha"),
        *("alpha_sigmoid_steepness", "bonds_moving_average", "bonds_penalty"),
        *("bonds_reset_enabled", "burn_half_life", "burn_increase_mult"),
        *("commit_reveal_weights_enabled", "commit_reveal_weights_interval", "immunity_period"),
        *("liquid_alpha_enabled", "max_allowed_uids", "max_burn", "mechanism_count"),
        *("mechanism_emission_split", "min_allowed_weights", "min_burn"),
        *("network_pow_registration_allowed", "owner_immune_neuron_limit", "recycle_or_burn"),
        *("rho", "serving_rate_limit", "sn_owner_hotkey", "toggle_transfer"),
        *("weights_version_key", "yuma3_enabled"),
    )
)
_GLOBAL_SETTERS = {
    "admin_freeze_window": "AdminFreezeWindow",
    "commit_reveal_version": "CommitRevealWeightsVersion",
    "default_take": "MaxDelegateTake",
    "lock_reduction_interval": "NetworkLockReductionInterval",
    "min_delegate_take": "MinDelegateTake",
    "network_immunity_period": "NetworkImmunityPeriod",
    "network_min_lock_cost": "NetworkMinLockCost",
    "network_rate_limit": "NetworkRateLimit",
    "nominator_min_required_stake": "NominatorMinRequiredStake",
    "owner_hparam_rate_limit": "OwnerHyperparamRateLimit",
    "stake_threshold": "StakeThreshold",
    "start_call_delay": "StartCallDelay",
    "subnet_limit": "SubnetLimit",
    "subnet_owner_cut": "SubnetOwnerCut",
    "total_issuance": "TotalIssuance",
    "tx_rate_limit": "TxRateLimit",
}
_PREFIX = "sudo_set_"


def _subnet_setter(item: str) -> Handler:
    def handle(context: Context, origin: Origin, call: Call) -> None:
        netuid, value = call.args.values()
        if call.function.removeprefix(_PREFIX) not in _OWNER_MAY or origin.is_root:
            origin.root()
        elif origin.signed() != context.state.get(PALLET, "SubnetOwner", netuid):
            raise BadOrigin
        if not context.state.get(PALLET, "NetworksAdded", netuid):
            raise ModuleFailure("AdminUtils", "SubnetDoesNotExist")
        _put(context, item, netuid, value)
        if item in {"MinBurn", "MaxBurn"}:
            _clamp_burn(context, netuid)

    return handle


def _put(context: Context, item: str, netuid: int, value: object) -> None:
    if value is None:
        context.state.remove(PALLET, item, netuid)
    else:
        context.state.put(PALLET, item, netuid, value)
    if item == "MechanismCountCurrent":
        neurons.fill_updates(context.state, netuid)


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
    **{_PREFIX + name: _subnet_setter(item) for name, item in _SUBNET_SETTERS.items()},
    **{_PREFIX + name: _global_setter(item) for name, item in _GLOBAL_SETTERS.items()},
}
