"""Tells a development chain from every other one, by its first header alone.

On the path of every decision that only a devnet may take (test proofs, stand-in GPUs, the process
runtime, private peers). Invariant: a chain counts as a devnet only where header 0 carries the
marker *and* hashes to the genesis hash, so that a node cannot claim the marker for another chain:
with a foreign state root there is no preimage, and the genesis hash is what signatures bind.

The marker is docs/architecture/03-protocols.md, "Devnet marker"; the header's SCALE form is
Substrate's `sp_runtime::generic::Header` (parent hash, compact number, state root, extrinsics root,
digest as a vector of encoded items), hashed by BLAKE2b-256.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from chutes_core.base.errors import ProtocolError

DEVNET_MARKER = b"chutes-devnet/1"
DEVNET_STATE_ROOT = "0x" + blake2b(DEVNET_MARKER, digest_size=32).hexdigest()


def is_devnet_header(header: Mapping[str, Any], genesis_hash: str) -> bool:
    """Tell whether this is header 0 of a devnet.

    Args:
        header: the answer of ``chain_getHeader`` for block 0, as JSON.
        genesis_hash: 0x-hex hash of block 0, as the chain signs with it.

    Raises:
        ProtocolError: ``bad_header``, the header cannot be read.
    """
    if header_number(header) != 0 or header.get("stateRoot") != DEVNET_STATE_ROOT:
        return False
    return header_hash(header) == genesis_hash


def header_number(header: Mapping[str, Any]) -> int:
    """Return the height of a JSON header.

    Raises:
        ProtocolError: ``bad_header``.
    """
    try:
        return int(header["number"], 16)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("bad_header", "the node sent a header that cannot be read") from error


def header_hash(header: Mapping[str, Any]) -> str:
    """Return the 0x-hex BLAKE2b-256 of a header's SCALE encoding.

    Raises:
        ProtocolError: ``bad_header``.
    """
    try:
        logs = [_bytes(log) for log in header["digest"]["logs"]]
        encoded = b"".join(
            (
                _hash(header["parentHash"]),
                _compact(header_number(header)),
                _hash(header["stateRoot"]),
                _hash(header["extrinsicsRoot"]),
                _compact(len(logs)),
                *logs,
            )
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("bad_header", "the node sent a header that cannot be read") from error
    return "0x" + blake2b(encoded, digest_size=32).hexdigest()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _hash(text: str) -> bytes:
    raw = _bytes(text)
    if len(raw) != 32:
        raise ValueError("a hash has 32 bytes")
    return raw


def _compact(number: int) -> bytes:
    """Encode a SCALE compact integer below 2**30 (heights and counts of genesis headers)."""
    if number < 1 << 6:
        return bytes([number << 2])
    if number < 1 << 14:
        return (number << 2 | 1).to_bytes(2, "little")
    if number < 1 << 30:
        return (number << 2 | 2).to_bytes(4, "little")
    raise ValueError("a block number of 2**30 or more")
