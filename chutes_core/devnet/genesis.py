"""The first state: funded development accounts, one subnet, its owner and validators.

All keys are sr25519 development URIs, so anyone can sign with them. Invariant: the genesis hash
is a function of the metadata and `GenesisParams` alone; the marker (see the package docstring)
is in header 0 exactly when the chain is meant to count as a devnet.
"""

import json
from dataclasses import asdict, dataclass

from bittensor_core import Keypair

from chutes_core.base.units import RAO_PER_TAO
from chutes_core.devnet import accounts
from chutes_core.devnet.codec import Codec, blake2_256
from chutes_core.devnet.events import EventLog
from chutes_core.devnet.pallets.subtensor import neurons, staking, subnets
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.state import StateWriter

NETUID = 1
DEVNET_STATE_ROOT = blake2_256(b"chutes-devnet/1")
FUNDED_URIS = (
    *("//Alice", "//Bob", "//Charlie", "//Dave", "//Eve", "//Ferdie", "//Owner"),
    *("//Validator1", "//Validator2", "//Miner1", "//Miner2", "//Miner3"),
)
FUNDS_RAO = 1_000_000 * RAO_PER_TAO
VALIDATOR_STAKE_RAO = 10_000 * RAO_PER_TAO
STAKE_THRESHOLD_RAO = 1_000 * RAO_PER_TAO
BURN_RAO = RAO_PER_TAO // 10

_IDENTITY_FIELDS = (
    *("subnet_name", "github_repo", "subnet_contact", "subnet_url"),
    *("discord", "description", "logo_url", "additional"),
)
_FOREIGN_STATE_ROOT = blake2_256(b"some other chain")


@dataclass(frozen=True)
class GenesisParams:
    """What a devnet can be started with.

    Args:
        tempo: blocks per epoch.
        block_ms: block time.
        validators: how many of //Validator1, //Validator2, … are registered and staked.
        foreign: leave out the marker, for tests of what is refused on other chains.
    """

    tempo: int = 20
    block_ms: int = 1_000
    validators: int = 2
    foreign: bool = False


def dev_address(uri: str) -> str:
    """Return the SS58 address of a development URI, e.g. ``//Alice``."""
    return str(Keypair.create_from_uri(uri).ss58_address)


def state_root(params: GenesisParams) -> bytes:
    """Return the state root of header 0: the marker, or something else on a foreign chain."""
    return _FOREIGN_STATE_ROOT if params.foreign else DEVNET_STATE_ROOT


def extrinsics_root(codec: Codec, params: GenesisParams) -> bytes:
    """Return the extrinsics root of header 0, which identifies metadata and parameters."""
    described = json.dumps(asdict(params), sort_keys=True).encode()
    metadata = codec.metadata
    return blake2_256(blake2_256(metadata.v15) + blake2_256(metadata.v14) + described)


def write(state: StateWriter, params: GenesisParams) -> None:
    """Write the state of block 0."""
    _write_accounts(state, params)
    state.put(PALLET, "NetworksAdded", 0, True)
    state.put(PALLET, "TotalNetworks", 1)
    state.put(PALLET, "StakeThreshold", STAKE_THRESHOLD_RAO)
    state.put(PALLET, "NetworkMinLockCost", 100 * RAO_PER_TAO)
    state.put("Sudo", "Key", dev_address("//Alice"))
    owner, owner_hotkey = dev_address("//Owner"), dev_address("//Owner//hotkey")
    subnets.create(state, NETUID, owner=owner, hotkey=owner_hotkey, block=0, tempo=params.tempo)
    subnets.activate(state, NETUID, 0)
    _write_subnet_parameters(state)
    for number in range(1, params.validators + 1):
        _write_validator(state, f"//Validator{number}")


def _write_accounts(state: StateWriter, params: GenesisParams) -> None:
    unheard = EventLog()
    more = tuple(f"//Validator{number}" for number in range(3, params.validators + 1))
    for uri in FUNDED_URIS + more:
        accounts.endow(state, unheard, dev_address(uri), FUNDS_RAO)
    state.put(PALLET, "TotalIssuance", int(state.get("Balances", "TotalIssuance")))


def _write_subnet_parameters(state: StateWriter) -> None:
    parameters = {
        "CommitRevealWeightsEnabled": False,
        "MinAllowedWeights": 1,
        "WeightsSetRateLimit": 5,
        "ServingRateLimit": 5,
        "MaxAllowedValidators": 64,
        "NetworkRegistrationAllowed": True,
        "Burn": BURN_RAO,
        "MinBurn": BURN_RAO,
        "MaxBurn": BURN_RAO,
        "TokenSymbol": "\u03b1".encode(),  # alpha
    }
    for item, value in parameters.items():
        state.put(PALLET, item, NETUID, value)
    blank = dict.fromkeys(_IDENTITY_FIELDS, b"")
    identity = blank | {"subnet_name": b"devnet", "description": b"A local chain, worth nothing"}
    state.put(PALLET, "SubnetIdentitiesV3", NETUID, identity)


def _write_validator(state: StateWriter, uri: str) -> None:
    coldkey, hotkey = dev_address(uri), dev_address(f"{uri}//hotkey")
    neurons.claim(state, hotkey, coldkey)
    uid = neurons.append(state, NETUID, hotkey, 0)
    staking.increase(state, hotkey, coldkey, NETUID, VALIDATOR_STAKE_RAO)
    neurons.put_entry(state, "ValidatorPermit", NETUID, uid, True)
