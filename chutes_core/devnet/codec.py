"""SCALE codec of the served runtime: storage keys and values, calls, events, module errors.

Sits between raw bytes (state, extrinsics, RPC) and plain values (pallets, runtime APIs). Accounts
are SS58 strings, byte strings are 0x-hex. Invariant: the codec is built from exactly the metadata
that clients are given, so both sides read the same bytes the same way.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import bittensor_core

from chutes_core.base.errors import Invalid, NotFound
from chutes_core.devnet.dispatch import Call
from chutes_core.devnet.metadata import Metadata

SS58_FORMAT = 42
MAX_NESTED_VALUES = 64  # lists and structs inside each other; one call inside a call makes three


def blake2_256(data: bytes) -> bytes:
    """Return the 32-byte BLAKE2b digest that Substrate uses for hashes of blocks and calls."""
    return blake2b(data, digest_size=32).digest()


class Codec:
    """Encodes and decodes by the registry of one metadata.

    Args:
        metadata: what clients are served, patched already.
    """

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self.runtime = bittensor_core.Runtime(
            metadata.v15, metadata.spec_version, metadata.transaction_version, SS58_FORMAT
        )
        pallets = self.runtime.metadata_ir()["pallets"]
        self._errors = {
            (pallet["name"], error["name"]): (pallet["index"], error["index"])
            for pallet in pallets
            for error in pallet["errors"]
        }
        self._apis: dict[str, dict[str, Any]] = self.runtime.runtime_api_map()
        registry = json.loads(self.runtime.registry_json())
        self._types: dict[int, dict[str, Any]] = {
            entry["id"]: entry["type"] for entry in registry["types"]
        }
        self._events_type = str(self.runtime.storage_entry("System", "Events").value_type)
        self.entry = lru_cache(maxsize=None)(self.runtime.storage_entry)
        self.key = lru_cache(maxsize=65_536)(self._key)

    # Storage

    def _key(self, pallet: str, item: str, params: tuple[Any, ...]) -> bytes:
        return bytes(self.runtime.storage_key(pallet, item, list(params)))

    def encode_value(self, pallet: str, item: str, value: Any) -> bytes:
        """Encode one value of a storage item."""
        return bytes(self.runtime.encode(self.entry(pallet, item).value_type, value))

    def decode_value(self, pallet: str, item: str, raw: bytes | None) -> Any:
        """Decode one value; an unset key gives the metadata's default, or None if optional."""
        entry = self.entry(pallet, item)
        if raw is None:
            if entry.modifier == "Optional":
                return None
            raw = bytes(entry.default_bytes)
        return self.runtime.decode(entry.value_type, raw)

    def key_params(self, pallet: str, item: str, key: bytes, fixed: int) -> Any:
        """Recover the free key part of a map's key after ``fixed`` given ones; a tuple if many."""
        parts = self.runtime.decode_storage_key_params(pallet, item, key, fixed)
        return parts[0] if len(parts) == 1 else tuple(parts)

    # Calls, events, errors

    def decode_call(self, data: bytes) -> Call:
        """Decode the bytes of one call.

        Raises:
            Invalid: ``call_undecodable``.
        """
        try:
            decoded = self.runtime.decode_call(data)
        except ValueError as error:
            raise Invalid("call_undecodable", f"the call does not decode: {error}") from error
        _check_depth(decoded)
        return self._call(decoded, data)

    def nested_call(self, decoded: dict[str, Any]) -> Call:
        """Turn a call found inside another call's arguments into a call of its own.

        Raises:
            Invalid: ``call_undecodable`` when its bytes cannot be recovered exactly.
        """
        args = {arg["name"]: self._raw_nested(arg["value"]) for arg in decoded["call_args"]}
        try:
            data = bytes(
                self.runtime.compose_call(decoded["call_module"], decoded["call_function"], args)
            )
        except (TypeError, ValueError) as error:
            raise Invalid("call_undecodable", f"a nested call does not encode: {error}") from error
        if "0x" + blake2_256(data).hex() != decoded["call_hash"]:
            raise Invalid("call_undecodable", "a nested call does not survive a round trip")
        return self._call(decoded, data)

    def _raw_nested(self, value: Any) -> Any:
        if isinstance(value, dict) and "call_hash" in value:
            return self.nested_call(value).data
        if isinstance(value, list):
            return [self._raw_nested(item) for item in value]
        return value

    @staticmethod
    def _call(decoded: dict[str, Any], data: bytes) -> Call:
        return Call(
            pallet=decoded["call_module"],
            function=decoded["call_function"],
            args={arg["name"]: arg["value"] for arg in decoded["call_args"]},
            data=data,
        )

    def compose_call(self, pallet: str, function: str, args: dict[str, Any]) -> bytes:
        """Encode a call."""
        return bytes(self.runtime.compose_call(pallet, function, args))

    def encode_events(self, records: Sequence[dict[str, Any]]) -> bytes:
        """Encode the records of one block as System.Events holds them."""
        return bytes(self.runtime.encode(self._events_type, list(records)))

    def module_error(self, pallet: str, name: str) -> dict[str, Any]:
        """Return the DispatchError value of a pallet's error."""
        index, error = self._errors[pallet, name]
        return {"Module": {"index": index, "error": f"0x{error:02x}000000"}}

    # Runtime APIs and the type registry

    def api_method(self, api: str, method: str) -> dict[str, Any]:
        """Return the signature of a runtime API's method.

        Raises:
            NotFound: ``unknown_runtime_api``.
        """
        try:
            found: dict[str, Any] = self._apis[api][method]
        except KeyError as error:
            raise NotFound("unknown_runtime_api", f"no runtime API {api}_{method}") from error
        return found

    def api_methods(self, api: str) -> dict[str, Any]:
        """Return the methods of a runtime API with their signatures."""
        methods: dict[str, Any] = self._apis[api]
        return methods

    def element(self, type_name: str) -> str | None:
        """Return the type of a list's items (through an Option); None for other types."""
        kind = self._types[_type_id(self.unwrap_option(type_name))]
        sequence = kind["def"].get("sequence")
        return None if sequence is None else f"scale_info::{sequence['type']}"

    def parts(self, type_name: str) -> list[str]:
        """Return the types of a tuple's members."""
        members = self._types[_type_id(type_name)]["def"]["tuple"]
        return [f"scale_info::{member}" for member in members]

    def decode(self, type_name: str, raw: bytes) -> Any:
        """Decode ``raw`` as a type; all bytes must be used."""
        return self.runtime.decode(type_name, raw)

    def encode(self, type_name: str, value: Any) -> bytes:
        """Encode a value as a type."""
        return bytes(self.runtime.encode(type_name, value))

    def unwrap_option(self, type_name: str) -> str:
        """Return the type inside an Option, or the type itself."""
        kind = self._types[_type_id(type_name)]
        if kind.get("path") == ["Option"]:
            return f"scale_info::{kind['params'][0]['type']}"
        return type_name

    def fields(self, type_name: str) -> list[tuple[str, str]]:
        """Return the named fields of a struct with their types, in order."""
        composite = self._types[_type_id(type_name)]["def"]["composite"]
        return [(f["name"], f"scale_info::{f['type']}") for f in composite.get("fields", [])]

    def zero(self, type_name: str) -> Any:
        """Return the empty value of a type: 0, False, "", [], None, or a struct of those."""
        return self._zero(_type_id(type_name))

    def _zero(self, type_id: int) -> Any:
        kind = self._types[type_id]
        [(shape, detail)] = kind["def"].items()
        if shape == "primitive":
            return {"bool": False, "str": ""}.get(detail, 0)
        if shape == "compact":
            return self._zero(detail["type"])
        if shape == "sequence":
            return []
        if shape == "array":
            return bytes(detail["len"])
        if shape == "tuple":
            return [self._zero(part) for part in detail]
        if shape == "composite":
            fields = detail.get("fields", [])
            if len(fields) == 1 and not fields[0].get("name"):
                return self._zero(fields[0]["type"])
            return {field["name"]: self._zero(field["type"]) for field in fields}
        if kind.get("path") == ["Option"]:
            return None
        return detail["variants"][0]["name"]


def _check_depth(decoded: Any) -> None:
    level, depth = [decoded], 0
    while level:
        if depth > MAX_NESTED_VALUES:
            raise Invalid("call_too_deep", f"a call nests more than {MAX_NESTED_VALUES} values")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        level, depth = inner, depth + 1


def _type_id(type_name: str) -> int:
    return int(type_name.removeprefix("scale_info::"))
