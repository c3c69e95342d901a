"""Runtime APIs: what `state_call` answers.

Each method's parameters and result are typed by the metadata; a struct is filled from `facts` by
field name, and a field that the devnet does not model gets its type's empty value. Invariant: an
API the devnet does not have is refused at once, never left to wait.
"""

from collections.abc import Callable, Mapping
from typing import Any

from chutes_core.base.errors import Invalid, NotFound
from chutes_core.devnet import accounts, facts, fees
from chutes_core.devnet.codec import Codec
from chutes_core.devnet.extrinsics import TransactionRefused, decode_extrinsic
from chutes_core.devnet.pallets.subtensor import neurons
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.pallets.subtensor.staking import ALPHA_PRICE_RAO
from chutes_core.devnet.scale import octets
from chutes_core.devnet.state import StateView
from chutes_core.devnet.version import SPEC_NAME, VersionHistory

_LENGTH_BYTES = 4
_METADATA_V15 = 15

_CONVICTION = (
    *("get_coldkey_lock", "get_hotkey_conviction"),
    "get_most_convicted_hotkey_on_subnet",
)

Method = Callable[..., Any]


class _Map(dict[Any, Any]):
    """A BTreeMap, complete as it is; other mappings are structs."""


class RuntimeApis:
    """Answers runtime API calls at one block.

    Args:
        codec: the runtime's types.
        slot_ms: block time.
        versions: runtime version by block.
    """

    def __init__(self, codec: Codec, *, slot_ms: int, versions: VersionHistory) -> None:
        self._codec = codec
        self._versions = versions
        self._slot_ms = slot_ms
        self._raw: dict[str, Callable[[StateView, bytes], bytes]] = {
            "Metadata_metadata": self._metadata,
            "Metadata_metadata_at_version": self._metadata_at_version,
            "Metadata_metadata_versions": lambda _view, _raw: codec.encode("Vec<u32>", [14, 15]),
            "TransactionPaymentApi_query_info": self._query_info,
            "TransactionPaymentApi_query_fee_details": self._query_fee_details,
        }
        self._typed: dict[str, Method] = {
            "AccountNonceApi_account_nonce": accounts.nonce,
            "AuraApi_slot_duration": lambda _view: self._slot_ms,
            "Core_version": self._version,
            **self._subnet_methods(),
            **_neuron_methods(),
            **_stake_methods(),
            **_empty_methods(codec),
        }

    def call(self, name: str, parameters: bytes, view: StateView) -> bytes:
        """Return the SCALE-encoded result of ``Api_method``.

        Raises:
            NotFound: ``unknown_runtime_api``.
            Invalid: ``runtime_api_parameters`` when they do not decode.
        """
        if name in self._raw:
            return self._raw[name](view, parameters)
        method = self._typed.get(name)
        if method is None:
            raise NotFound("unknown_runtime_api", f"devnet has no runtime API {name}")
        api, _, function = name.partition("_")
        signature = self._codec.api_method(api, function)
        types = [type_name for _, type_name in signature["inputs"]]
        result = method(view, *self._parameters(types, parameters))
        return self._codec.encode(signature["output"], self._shape(signature["output"], result))

    def _parameters(self, types: list[str], raw: bytes) -> list[Any]:
        if not types:
            return []
        try:
            if len(types) == 1:
                return [self._codec.decode(types[0], raw)]
            return list(self._codec.decode(f"({','.join(types)})", raw))
        except ValueError as error:
            raise Invalid("runtime_api_parameters", f"parameters do not decode: {error}") from error

    def _shape(self, type_name: str, result: Any) -> Any:
        """Complete structs with empty fields, in Options, lists and tuples too."""
        if isinstance(result, _Map):
            return dict(result)
        if isinstance(result, Mapping):
            return self._fill(self._codec.unwrap_option(type_name), result)
        element = self._codec.element(type_name) if isinstance(result, list) else None
        if element is not None:
            return [self._shape(element, item) for item in result]
        if isinstance(result, tuple):
            parts = self._codec.parts(type_name)
            return tuple(map(self._shape, parts, result))
        return result

    def _fill(self, type_name: str, known: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: known[name] if name in known else self._codec.zero(field_type)
            for name, field_type in self._codec.fields(type_name)
        }

    # Metadata, version, fees

    def _metadata(self, _view: StateView, _parameters: bytes) -> bytes:
        return octets(self._codec.metadata.v14)

    def _metadata_at_version(self, _view: StateView, parameters: bytes) -> bytes:
        version = int.from_bytes(parameters, "little")
        if version == _METADATA_V15:
            return b"\x01" + octets(self._codec.metadata.v15)
        if version == _METADATA_V15 - 1:
            return b"\x01" + octets(self._codec.metadata.v14)
        return b"\x00"

    def _version(self, view: StateView) -> dict[str, Any]:
        version = self._versions.at(_block(view) + 1)
        return {
            "spec_name": SPEC_NAME,
            "impl_name": SPEC_NAME,
            "authoring_version": 1,
            "spec_version": version.spec,
            "impl_version": 1,
            "transaction_version": version.transaction,
            "system_version": 1,
        }

    def _query_info(self, _view: StateView, parameters: bytes) -> bytes:
        info = payment_info(self._codec, parameters[:-_LENGTH_BYTES])
        output = self._codec.api_method("TransactionPaymentApi", "query_info")["output"]
        return self._codec.encode(output, info)

    def _query_fee_details(self, _view: StateView, parameters: bytes) -> bytes:
        raw = parameters[:-_LENGTH_BYTES]
        fee_rao = int(payment_info(self._codec, raw)["partial_fee"])
        details = {
            "inclusion_fee": {
                "base_fee": 0,
                "len_fee": len(raw),
                "adjusted_weight_fee": fee_rao - len(raw),
            },
            "tip": 0,
        }
        output = self._codec.api_method("TransactionPaymentApi", "query_fee_details")["output"]
        return self._codec.encode(output, details)

    # Subnets

    def _subnet_methods(self) -> dict[str, Method]:
        prefix = "SubnetInfoRuntimeApi_"
        methods: dict[str, Method] = {
            "get_block_emission": lambda _view: 0,
            "get_next_epoch_start_block": _next_epoch,
            "get_selective_metagraph": self._selective,
            "get_selective_mechagraph": lambda view, netuid, _mechanism, chosen: self._selective(
                view, netuid, chosen
            ),
            "get_mechagraph": lambda view, netuid, _mechanism: _metagraph(view, netuid),
            "get_subnet_hyperparams_v3": self._hyperparameters,
            "get_subnet_to_prune": lambda _view: None,
            "get_coldkey_auto_stake_hotkey": lambda _view, _coldkey, _netuid: None,
        }
        for name in ("metagraph", "subnet_state"):
            methods[f"get_{name}"] = _metagraph
        for name in (
            *("dynamic_info", "subnet_info", "subnet_info_v2"),
            *("subnet_hyperparams", "subnet_hyperparams_v2"),
        ):
            methods[f"get_{name}"] = _subnet
        for name, one in (
            ("get_all_dynamic_info", _subnet),
            ("get_subnets_info", _subnet),
            ("get_subnets_info_v2", _subnet),
            ("get_all_metagraphs", _metagraph),
        ):
            methods[name] = _for_all(one)
        return {prefix + name: method for name, method in methods.items()}

    def _selective(self, view: StateView, netuid: int, chosen: list[int]) -> dict[str, Any] | None:
        graph = _metagraph(view, netuid)
        if graph is None:
            return None
        output = self._codec.api_method("SubnetInfoRuntimeApi", "get_selective_metagraph")["output"]
        names = [name for name, _ in self._codec.fields(self._codec.unwrap_option(output))]
        wanted = {names[index] for index in chosen if index < len(names)}
        return {
            name: graph.get(name) if name in wanted or name == "netuid" else None for name in names
        }

    def _hyperparameters(self, view: StateView, netuid: int) -> list[dict[str, Any]] | None:
        known = _subnet(view, netuid)
        if known is None:
            return None
        output = self._codec.api_method("SubnetInfoRuntimeApi", "get_subnet_hyperparams")["output"]
        entries = []
        for name, _type in self._codec.fields(self._codec.unwrap_option(output)):
            value = known[name]
            kind = "Bool" if isinstance(value, bool) else "U64"
            entries.append({"name": name.encode(), "value": {kind: value}})
        return entries


def payment_info(codec: Codec, raw: bytes) -> dict[str, Any]:
    """Return weight, class and fee of an extrinsic; its signature may be empty.

    Raises:
        Invalid: ``extrinsic_undecodable``.
    """
    try:
        extrinsic = decode_extrinsic(codec, raw)
    except TransactionRefused as error:
        raise Invalid("extrinsic_undecodable", str(error)) from error
    info = fees.dispatch_info(codec, extrinsic.call)
    return {
        "weight": info["weight"],
        "class": info["class"],
        "partial_fee": fees.fee_rao(codec, extrinsic.call, len(raw)),
    }


def _block(view: StateView) -> int:
    return int(view.get("System", "Number"))


def _subnet(view: StateView, netuid: int) -> dict[str, Any] | None:
    return facts.subnet_facts(view, netuid, _block(view)) if neurons.exists(view, netuid) else None


def _metagraph(view: StateView, netuid: int) -> dict[str, Any] | None:
    known = _subnet(view, netuid)
    return None if known is None else known | facts.neuron_columns(view, netuid)


def _for_all(one: Method) -> Method:
    def every(view: StateView) -> list[Any]:
        netuids = sorted(int(n) for n, added in view.items(PALLET, "NetworksAdded") if added)
        return [one(view, netuid) for netuid in netuids]

    return every


def _next_epoch(view: StateView, netuid: int) -> int | None:
    tempo = int(view.get(PALLET, "Tempo", netuid))
    return int(view.get(PALLET, "LastEpochBlock", netuid)) + tempo if tempo else None


def _neuron_methods() -> dict[str, Method]:
    def one(view: StateView, netuid: int, uid: int) -> dict[str, Any] | None:
        records = facts.neuron_records(view, netuid)
        return records[uid] if uid < len(records) else None

    prefix = "NeuronInfoRuntimeApi_"
    return {
        prefix + "get_neurons": facts.neuron_records,
        prefix + "get_neurons_lite": facts.neuron_records,
        prefix + "get_neuron": one,
        prefix + "get_neuron_lite": one,
    }


def _stake_methods() -> dict[str, Method]:
    prefix = "StakeInfoRuntimeApi_"

    def of_coldkeys(view: StateView, coldkeys: list[str]) -> list[Any]:
        return [(coldkey, facts.stake_records(view, coldkey)) for coldkey in coldkeys]

    return {
        prefix + "get_stake_info_for_coldkey": facts.stake_records,
        prefix + "get_stake_info_for_coldkeys": of_coldkeys,
        prefix + "get_stake_info_for_hotkey_coldkey_netuid": facts.stake_record,
        prefix + "get_stake_availability_for_coldkeys": _availability,
        prefix + "get_stake_fee": lambda _view, *_ignored: 0,
    }


def _availability(view: StateView, coldkeys: list[str], netuids: list[int] | None) -> "_Map":
    """Return total, locked and available stake by coldkey and subnet; nothing is ever locked."""
    found = _Map()
    for coldkey in coldkeys:
        sums: dict[int, int] = {}
        for record in facts.stake_records(view, coldkey):
            netuid = int(record["netuid"])
            if netuids is None or netuid in netuids:
                sums[netuid] = sums.get(netuid, 0) + int(record["stake"])
        found[coldkey] = {
            netuid: {"total": total, "locked": 0, "available": total}
            for netuid, total in sorted(sums.items())
        }
    return found


def _quote(_view: StateView, _netuid: int, value: int) -> dict[str, int]:
    """Return what a swap gives: as much, without fee or slippage."""
    return {"tao_amount": value, "alpha_amount": value}


def _empty_methods(codec: Codec) -> dict[str, Method]:
    """Methods of what the devnet does not model; their answers are true and empty."""

    def prices(view: StateView) -> list[dict[str, int]]:
        return [
            {"netuid": int(netuid), "price": ALPHA_PRICE_RAO}
            for netuid, added in view.items(PALLET, "NetworksAdded")
            if added
        ]

    def lock_cost(view: StateView) -> int:
        return int(view.get(PALLET, "NetworkMinLockCost"))

    methods: dict[str, Method] = {
        "SwapRuntimeApi_current_alpha_price": lambda _view, _netuid: ALPHA_PRICE_RAO,
        "SwapRuntimeApi_current_alpha_price_all": prices,
        "SwapRuntimeApi_sim_swap_tao_for_alpha": _quote,
        "SwapRuntimeApi_sim_swap_alpha_for_tao": _quote,
        "SubnetRegistrationRuntimeApi_get_network_registration_cost": lock_cost,
    }
    for api in ("BetaBasketRuntimeApi", "DelegateInfoRuntimeApi", "StakeInfoRuntimeApi"):
        for name, signature in codec.api_methods(api).items():
            if api != "StakeInfoRuntimeApi" or name in _CONVICTION:
                methods[f"{api}_{name}"] = _constant(codec.zero(signature["output"]))
    return methods


def _constant(value: Any) -> Method:
    return lambda _view, *_ignored: value
