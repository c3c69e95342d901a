"""The neurons of a subnet as storage holds them: two maps, a block per uid, parallel vectors.

Used by genesis, registration, weights and the epoch. Invariant: `Keys[netuid, uid]` and
`Uids[netuid, hotkey]` mirror each other, and each vector has one entry per uid.
"""

from typing import Any

from chutes_core.devnet.state import StateView, StateWriter

PALLET = "SubtensorModule"
MAX_SUBNETS = 4_096  # mechanism m of subnet n is stored under m * 4096 + n

_VECTORS: dict[str, Any] = {
    "Active": True,
    "Consensus": 0,
    "Incentive": 0,
    "Dividends": 0,
    "Emission": 0,
    "ValidatorTrust": 0,
    "ValidatorPermit": False,
    "StakeWeight": 0,
}


def storage_index(netuid: int, mechanism: int) -> int:
    """Return the key under which a mechanism's weights and updates are stored."""
    return mechanism * MAX_SUBNETS + netuid


def exists(state: StateView, netuid: int) -> bool:
    """Tell whether the subnet exists."""
    return bool(state.get(PALLET, "NetworksAdded", netuid))


def count(state: StateView, netuid: int) -> int:
    """Return the number of neurons."""
    return int(state.get(PALLET, "SubnetworkN", netuid))


def uid_of(state: StateView, netuid: int, hotkey: str) -> int | None:
    """Return a hotkey's uid, or None."""
    uid = state.get(PALLET, "Uids", netuid, hotkey)
    return None if uid is None else int(uid)


def hotkey_of(state: StateView, netuid: int, uid: int) -> str:
    """Return the hotkey at a uid."""
    return str(state.get(PALLET, "Keys", netuid, uid))


def owner_of(state: StateView, hotkey: str) -> str:
    """Return the coldkey that owns a hotkey (the zero account when nobody does)."""
    return str(state.get(PALLET, "Owner", hotkey))


def is_owned(state: StateView, hotkey: str) -> bool:
    """Tell whether some coldkey owns the hotkey."""
    return state.has(PALLET, "Owner", hotkey)


def claim(state: StateWriter, hotkey: str, coldkey: str) -> None:
    """Record that a coldkey owns a hotkey nobody owned."""
    state.put(PALLET, "Owner", hotkey, coldkey)
    owned = [str(key) for key in state.get(PALLET, "OwnedHotkeys", coldkey)]
    state.put(PALLET, "OwnedHotkeys", coldkey, [*owned, hotkey])


def append(state: StateWriter, netuid: int, hotkey: str, block: int) -> int:
    """Add a neuron at the next free uid and return the uid."""
    uid = count(state, netuid)
    state.put(PALLET, "SubnetworkN", netuid, uid + 1)
    for item, empty in _VECTORS.items():
        state.put(PALLET, item, netuid, [*vector(state, item, netuid), empty])
    for index in mechanisms(state, netuid):
        updates = [*vector(state, "LastUpdate", index), 0]
        state.put(PALLET, "LastUpdate", index, updates[: uid + 1])
    _set(state, netuid, uid, hotkey, block)
    return uid


def replace(state: StateWriter, netuid: int, uid: int, hotkey: str, block: int) -> None:
    """Give a uid to another hotkey; nothing of the old neuron stays."""
    old = hotkey_of(state, netuid, uid)
    for item in ("Uids", "Axons", "Prometheus", "NeuronCertificates"):
        state.remove(PALLET, item, netuid, old)
    state.remove(PALLET, "IsNetworkMember", old, netuid)
    for item, empty in _VECTORS.items():
        put_entry(state, item, netuid, uid, empty)
    for index in mechanisms(state, netuid):
        state.remove(PALLET, "Weights", index, uid)
        state.remove(PALLET, "Bonds", index, uid)
    _set(state, netuid, uid, hotkey, block)


def vector(state: StateView, item: str, index: int) -> list[Any]:
    """Return one of the parallel vectors."""
    return list(state.get(PALLET, item, index))


def put_entry(state: StateWriter, item: str, index: int, uid: int, value: Any) -> None:
    """Set one uid's entry of a parallel vector."""
    entries = vector(state, item, index)
    entries[uid] = value
    state.put(PALLET, item, index, entries)


def fill_updates(state: StateWriter, netuid: int) -> None:
    """Give every mechanism of a subnet one LastUpdate per uid."""
    size = count(state, netuid)
    for index in mechanisms(state, netuid):
        known = vector(state, "LastUpdate", index)
        state.put(PALLET, "LastUpdate", index, (known + [0] * size)[:size])


def mechanisms(state: StateView, netuid: int) -> list[int]:
    """Return the storage indexes of a subnet's mechanisms."""
    number = int(state.get(PALLET, "MechanismCountCurrent", netuid))
    return [storage_index(netuid, mechanism) for mechanism in range(number)]


def _set(state: StateWriter, netuid: int, uid: int, hotkey: str, block: int) -> None:
    state.put(PALLET, "Keys", netuid, uid, hotkey)
    state.put(PALLET, "Uids", netuid, hotkey, uid)
    state.put(PALLET, "IsNetworkMember", hotkey, netuid, True)
    state.put(PALLET, "BlockAtRegistration", netuid, uid, block)
    for index in mechanisms(state, netuid):
        put_entry(state, "LastUpdate", index, uid, block)
