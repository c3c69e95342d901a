"""A sealed block and its header.

Invariant: `hash` is the blake2b-256 of the SCALE-encoded header, so a client can recompute it.
Not as on a real chain: the roots are hashes of changes and extrinsics, not trie roots.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chutes_core.devnet.codec import blake2_256
from chutes_core.devnet.extrinsics import header_bytes


@dataclass(frozen=True)
class Block:
    """One block of the chain."""

    number: int
    parent_hash: bytes
    state_root: bytes
    extrinsics_root: bytes
    extrinsics: tuple[bytes, ...]

    @cached_property
    def hash(self) -> bytes:
        """The block's hash."""
        return blake2_256(
            header_bytes(self.parent_hash, self.number, self.state_root, self.extrinsics_root)
        )

    def header_json(self) -> dict[str, Any]:
        """Return the header in the form of the ``chain`` API."""
        return {
            "parentHash": "0x" + self.parent_hash.hex(),
            "number": hex(self.number),
            "stateRoot": "0x" + self.state_root.hex(),
            "extrinsicsRoot": "0x" + self.extrinsics_root.hex(),
            "digest": {"logs": []},
        }
