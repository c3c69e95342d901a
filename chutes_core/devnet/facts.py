"""What is known about a subnet and its neurons, by the field names of the runtime's API structs.

`apis` picks from here what each struct asks for. Invariant: the lists of neurons are by uid and
of equal length.
"""

from typing import Any

from chutes_core.devnet.pallets.subtensor import neurons, staking
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.state import StateView

_U16_MAX = 65_535

# field -> storage item of SubtensorModule, keyed by netuid
_SUBNET_ITEMS = {
    "activity_cutoff": "ActivityCutoff",
    "adjustment_alpha": "AdjustmentAlpha",
    "adjustment_interval": "AdjustmentInterval",
    "alpha_in": "SubnetAlphaIn",
    "alpha_out": "SubnetAlphaOut",
    "blocks_since_last_step": "BlocksSinceLastStep",
    "bonds_moving_avg": "BondsMovingAverage",
    "burn": "Burn",
    "commit_reveal_period": "RevealPeriodEpochs",
    "commit_reveal_weights_enabled": "CommitRevealWeightsEnabled",
    "difficulty": "Difficulty",
    "immunity_period": "ImmunityPeriod",
    "kappa": "Kappa",
    "last_step": "LastMechansimStepBlock",
    "liquid_alpha_enabled": "LiquidAlphaOn",
    "max_allowed_uids": "MaxAllowedUids",
    "max_allowed_validators": "MaxAllowedValidators",
    "max_burn": "MaxBurn",
    "max_difficulty": "MaxDifficulty",
    "max_regs_per_block": "MaxRegistrationsPerBlock",
    "max_uids": "MaxAllowedUids",
    "max_validators": "MaxAllowedValidators",
    "max_weights_limit": "MaxWeightsLimit",
    "min_allowed_weights": "MinAllowedWeights",
    "min_burn": "MinBurn",
    "min_difficulty": "MinDifficulty",
    "moving_price": "SubnetMovingPrice",
    "network_registered_at": "NetworkRegisteredAt",
    "num_uids": "SubnetworkN",
    "owner": "SubnetOwner",
    "owner_coldkey": "SubnetOwner",
    "owner_hotkey": "SubnetOwnerHotkey",
    "pow_registration_allowed": "NetworkPowRegistrationAllowed",
    "registration_allowed": "NetworkRegistrationAllowed",
    "rho": "Rho",
    "scaling_law_power": "ScalingLawPower",
    "serving_rate_limit": "ServingRateLimit",
    "subnet_is_active": "SubtokenEnabled",
    "subnetwork_n": "SubnetworkN",
    "tao_in": "SubnetTAO",
    "target_regs_per_interval": "TargetRegistrationsPerInterval",
    "tempo": "Tempo",
    "transfers_enabled": "TransferToggle",
    "weights_rate_limit": "WeightsSetRateLimit",
    "weights_version": "WeightsVersionKey",
}
_VECTOR_ITEMS = {
    "active": "Active",
    "consensus": "Consensus",
    "dividends": "Dividends",
    "emission": "Emission",
    "incentives": "Incentive",
    "last_update": "LastUpdate",
    "rank": "Incentive",
    "trust": "ValidatorTrust",
    "validator_permit": "ValidatorPermit",
}
_EMPTY_AXON = {
    name: 0
    for name in (
        *("block", "version", "ip", "port"),
        *("ip_type", "protocol", "placeholder1", "placeholder2"),
    )
}
_EMPTY_PROMETHEUS = {name: 0 for name in ("block", "version", "ip", "port", "ip_type")}


def subnet_facts(view: StateView, netuid: int, block: int) -> dict[str, Any]:
    """Return a subnet's parameters and pool."""
    facts = {name: view.get(PALLET, item, netuid) for name, item in _SUBNET_ITEMS.items()}
    low, high = view.get(PALLET, "AlphaValues", netuid)
    name = list(b"devnet" if netuid else b"root")
    symbol = _bytes(view.get(PALLET, "TokenSymbol", netuid))
    facts |= {
        "netuid": netuid,
        "block": block,
        "alpha_low": low,
        "alpha_high": high,
        "name": name,
        "subnet_name": name,
        "symbol": list(symbol),
        "token_symbol": list(symbol),
        "network_modality": 1,
    }
    return facts


def neuron_columns(view: StateView, netuid: int) -> dict[str, list[Any]]:
    """Return the lists by uid that the metagraph structs hold."""
    size = neurons.count(view, netuid)
    hotkeys = [neurons.hotkey_of(view, netuid, uid) for uid in range(size)]
    columns: dict[str, list[Any]] = {
        name: neurons.vector(view, item, netuid) for name, item in _VECTOR_ITEMS.items()
    }
    stake = [staking.hotkey_alpha(view, hotkey, netuid) for hotkey in hotkeys]
    columns |= {
        "hotkeys": hotkeys,
        "coldkeys": [neurons.owner_of(view, hotkey) for hotkey in hotkeys],
        "identities": [None] * size,
        "axons": [view.get(PALLET, "Axons", netuid, key) or _EMPTY_AXON for key in hotkeys],
        "block_at_registration": [
            view.get(PALLET, "BlockAtRegistration", netuid, uid) for uid in range(size)
        ],
        "pruning_score": [0] * size,
        "alpha_stake": stake,
        "total_stake": stake,
        "tao_stake": [0] * size,
        "collateral_locked": [0] * size,
        "collateral_min": [0] * size,
        "collateral_earned": [0] * size,
    }
    return columns


def neuron_records(view: StateView, netuid: int) -> list[dict[str, Any]]:
    """Return one record per uid, with the fields of NeuronInfo and NeuronInfoLite."""
    columns = neuron_columns(view, netuid)
    records = []
    for uid, hotkey in enumerate(columns["hotkeys"]):
        records.append(
            {
                "hotkey": hotkey,
                "coldkey": columns["coldkeys"][uid],
                "uid": uid,
                "netuid": netuid,
                "active": columns["active"][uid],
                "axon_info": columns["axons"][uid],
                "prometheus_info": view.get(PALLET, "Prometheus", netuid, hotkey)
                or _EMPTY_PROMETHEUS,
                "stake": _stakes(view, hotkey, netuid),
                "incentive": columns["incentives"][uid],
                "validator_trust": columns["trust"][uid],
                "weights": view.get(PALLET, "Weights", netuid, uid),
                "bonds": [],
                **{
                    name: columns[name][uid]
                    for name in (
                        *("rank", "emission", "consensus", "trust", "dividends"),
                        *("last_update", "validator_permit", "pruning_score"),
                    )
                },
            }
        )
    return records


def stake_records(view: StateView, coldkey: str) -> list[dict[str, Any]]:
    """Return a coldkey's positions, with the fields of StakeInfo."""
    hotkeys = [str(key) for key in view.get(PALLET, "StakingHotkeys", coldkey)]
    netuids = [int(netuid) for netuid, added in view.items(PALLET, "NetworksAdded") if added]
    found = (stake_record(view, hotkey, coldkey, n) for hotkey in hotkeys for n in netuids)
    return [record for record in found if record["stake"]]


def stake_record(view: StateView, hotkey: str, coldkey: str, netuid: int) -> dict[str, Any]:
    """Return one position, with the fields of StakeInfo."""
    return {
        "hotkey": hotkey,
        "coldkey": coldkey,
        "netuid": netuid,
        "stake": staking.coldkey_alpha(view, hotkey, coldkey, netuid),
        "is_registered": neurons.uid_of(view, netuid, hotkey) is not None,
    }


def _stakes(view: StateView, hotkey: str, netuid: int) -> list[tuple[str, int]]:
    shares = view.items(PALLET, "Alpha", hotkey)
    coldkeys = [coldkey for (coldkey, n), _ in shares if n == netuid]
    found = [(key, staking.coldkey_alpha(view, hotkey, key, netuid)) for key in coldkeys]
    return [(key, alpha) for key, alpha in found if alpha]


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return bytes.fromhex(value[2:]) if value.startswith("0x") else value.encode()
    return bytes(value)
