"""A GPU's standing with this validator: admitted, or contested between hotkeys.

Invariant: an admission is one accepted node attestation; it proves nothing after its age limit.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Admission:
    """The last accepted node attestation of one GPU.

    ``gpu_class`` is what it claims, ``counts_as`` what its figures proved (a lesser class, or ""
    for none, where the claimed one is uncalibrated); ``proven_at_s`` is its last full challenge of
    any profile.
    """

    miner_hotkey: str
    gpu_uuid: str
    gpu_class: str
    counts_as: str
    proof_id: str
    profile: str
    at_s: int
    proven_at_s: int


@dataclass(frozen=True)
class Sighting:
    """A hotkey showed a GPU: ``key`` is its UUID, or its PCI id with the address of its host."""

    key: str
    gpu_uuid: str
    miner_hotkey: str
    at_s: int
    not_before_s: int


@dataclass(frozen=True)
class Summons:
    """A GPU was called to a round and owes an answer.

    ``launch_id`` is the launch that it stood in when the round ended, which excuses it until that
    launch has proven something or is gone; "" while the round lasts.
    """

    miner_hotkey: str
    gpu_uuid: str
    launch_id: str = ""
