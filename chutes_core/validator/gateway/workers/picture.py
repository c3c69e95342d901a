"""A Snapshot as it is sent to workers: as a whole to a new one, as changes to the others.

Path: launches/snapshot -> crew -> here -> channel -> here -> worker's Gateway.swap. Invariant:
`Picture.apply` of what `encode(old, new)` returns, on a picture of ``old``, gives exactly ``new``.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import orjson
from pydantic import TypeAdapter

from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import (
    AliasView,
    ChuteView,
    InstanceView,
    PayerView,
    Snapshot,
)

_NUMBERS = ("ledger_entry",)
_MAPS = tuple(field.name for field in fields(Snapshot) if field.name not in _NUMBERS)
_READ: dict[str, TypeAdapter[Any]] = {
    "keys": TypeAdapter(ApiKey),
    "payers": TypeAdapter(PayerView),
    "chutes": TypeAdapter(ChuteView),
    "aliases": TypeAdapter(AliasView),
}


def encode(old: Snapshot, new: Snapshot, version: int) -> bytes:
    """Return the JSON of what has changed; it is read in the order of versions."""
    changes: dict[str, object] = {"version": version}
    for name in _NUMBERS:
        changes[name] = getattr(new, name)
    for name in _MAPS:
        before, after = getattr(old, name), getattr(new, name)
        put = {key: value for key, value in after.items() if before.get(key) != value}
        gone = [key for key in before if key not in after]
        if put or gone:
            changes[name] = {"put": put, "gone": gone}
    return orjson.dumps(changes, default=_plain)


class Picture:
    """The snapshot that a worker has been told so far."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()

    def apply(self, changes: Mapping[str, Any]) -> Snapshot:
        """Return the snapshot after these changes."""
        values: dict[str, Any] = {name: changes[name] for name in _NUMBERS}
        for name in _MAPS:
            values[name] = getattr(self.snapshot, name)
            if name in changes:
                values[name] = _changed(name, values[name], changes[name])
        self.snapshot = Snapshot(**values)
        return self.snapshot


def _changed(name: str, before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    after = dict(before)
    for key in change["gone"]:
        del after[key]
    for key, value in change["put"].items():
        after[key] = _read(name, value)
    return after


def _read(name: str, value: Any) -> Any:
    if name == "instances":
        return tuple(_instance(one) for one in value)
    if name == "chutes":
        value = value | {"rate": Rate(**value["rate"])}  # pydantic makes none of a compiled class
    reader = _READ.get(name)
    return value if reader is None else reader.validate_python(value)


def _instance(fields_: dict[str, Any]) -> InstanceView:
    secret = {name: bytes.fromhex(fields_[name]) for name in ("ticket", "root")}
    return InstanceView(**(fields_ | secret))


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"a snapshot holds no {type(value).__name__}")
