"""The runtime's metadata: loaded from a file, then patched to describe this chain.

The file is `tests/fixtures/golden.json` of the bittensor 11.3.0 source distribution, brought here
by `scripts/fetch_metadata.py`. Two patches, made on the SCALE bytes so that all else stays real:
the constant Aura.SlotDuration becomes the devnet's block time (the SDK derives its waits from
it), and SubtensorModule gains the storage map SubnetEpochConsensus, which SDK 11.3.0 reads before
it sets weights but runtime 461 lacks. Invariant: an untouched byte of the metadata stays as it is.

Layout: frame-metadata V14 and V15 (https://docs.rs/frame-metadata/latest/frame_metadata/).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chutes_core.base.errors import Invalid, NotFound
from chutes_core.devnet.scale import Reader, compact, octets

DEFAULT_METADATA = Path(__file__).resolve().parents[2] / ".cache" / "metadata.json"

_V15_PREFIX = b"meta\x0f"
_CONSENSUS_PATH = ("pallet_subtensor", "pallet", "EpochConsensus")
_CONSENSUS_VARIANTS = ("Yuma", "Null")
_IDENTITY_HASHER = 5
_MODIFIER_DEFAULT = 1


@dataclass(frozen=True)
class Metadata:
    """The metadata in both versions that clients ask for, as raw ``meta…`` bytes."""

    v15: bytes
    v14: bytes
    spec_version: int
    transaction_version: int


def load_metadata(path: Path) -> Metadata:
    """Read the unpatched metadata from the fetched file.

    Raises:
        NotFound: ``metadata_missing``; the hint names the command that fetches it.
        Invalid: ``metadata_malformed``.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise NotFound(
            "metadata_missing",
            f"{path} does not exist",
            hint="run: python scripts/fetch_metadata.py",
        ) from error
    except ValueError as error:
        raise Invalid("metadata_malformed", f"{path} is not JSON") from error
    try:
        opaque = Reader(bytes.fromhex(document["metadata"]["v15_hex"][2:]))
        if opaque.u8() != 1:  # Option::Some
            raise Invalid("metadata_malformed", f"{path} holds no V15 metadata")
        return Metadata(
            v15=opaque.octets(),
            v14=bytes.fromhex(document["metadata"]["v14_hex"][2:]),
            spec_version=int(document["network"]["spec_version"]),
            transaction_version=int(document["network"]["transaction_version"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid("metadata_malformed", f"{path} is not the expected file") from error


def patch_metadata(metadata: Metadata, *, block_ms: int) -> Metadata:
    """Return the metadata that the devnet serves for a block time of ``block_ms``."""
    return Metadata(
        v15=_patch(metadata.v15, block_ms),
        v14=_patch(metadata.v14, block_ms),
        spec_version=metadata.spec_version,
        transaction_version=metadata.transaction_version,
    )


def _patch(raw: bytes, block_ms: int) -> bytes:
    reader = Reader(raw)
    reader.take(5)
    types_at = reader.offset
    type_count = reader.compact()
    types_start = reader.offset
    for _ in range(type_count):
        _skip_type(reader)
    types = raw[types_start : reader.offset] + _consensus_type(type_count)
    pallets_at = reader.offset
    edits = _Edits(consensus_type=type_count, slot=block_ms.to_bytes(8, "little"))
    for _ in range(reader.compact()):
        _walk_pallet(reader, edits, has_docs=raw.startswith(_V15_PREFIX))
    if len(edits.splices) != 3:
        raise Invalid("metadata_malformed", "the pallets Aura and SubtensorModule were not found")
    out = [raw[:types_at], compact(type_count + 1), types]
    position = pallets_at
    for start, end, replacement in edits.splices:
        out += [raw[position:start], replacement]
        position = end
    return b"".join([*out, raw[position:]])


class _Edits:
    """Collects replacements `(start, end, bytes)` in the order of the walk."""

    def __init__(self, *, consensus_type: int, slot: bytes) -> None:
        self.consensus_type = consensus_type
        self.slot = slot
        self.splices: list[tuple[int, int, bytes]] = []


def _consensus_type(type_id: int) -> bytes:
    path = b"".join(octets(part.encode()) for part in _CONSENSUS_PATH)
    variants = b"".join(
        octets(name.encode()) + compact(0) + bytes([index]) + compact(0)
        for index, name in enumerate(_CONSENSUS_VARIANTS)
    )
    definition = b"\x01" + compact(len(_CONSENSUS_VARIANTS)) + variants
    no_params = no_docs = compact(0)
    return (
        compact(type_id) + compact(len(_CONSENSUS_PATH)) + path + no_params + definition + no_docs
    )


def _consensus_entry(netuid_type: int, value_type: int) -> bytes:
    kind = b"\x01" + compact(1) + bytes([_IDENTITY_HASHER])
    return (
        octets(b"SubnetEpochConsensus")
        + bytes([_MODIFIER_DEFAULT])
        + kind
        + compact(netuid_type)
        + compact(value_type)
        + octets(b"\x00")
        + compact(0)
    )


def _walk_pallet(reader: Reader, edits: _Edits, *, has_docs: bool) -> None:
    name = reader.text()
    if reader.u8():
        _walk_storage(reader, edits, is_subtensor=name == "SubtensorModule")
    _skip_option(reader, Reader.compact)  # calls
    _skip_option(reader, Reader.compact)  # events
    for _ in range(reader.compact()):
        constant = reader.text()
        reader.compact()
        start = reader.offset
        value = reader.octets()
        if (name, constant) == ("Aura", "SlotDuration") and len(value) == 8:
            edits.splices.append((start, reader.offset, octets(edits.slot)))
        _skip_texts(reader)
    _skip_option(reader, Reader.compact)  # errors
    reader.u8()  # index
    if has_docs:
        _skip_texts(reader)


def _walk_storage(reader: Reader, edits: _Edits, *, is_subtensor: bool) -> None:
    reader.text()  # prefix
    count_at = reader.offset
    count = reader.compact()
    count_end = reader.offset
    netuid_type = None
    for _ in range(count):
        name = reader.text()
        reader.u8()  # modifier
        key_type = None
        if reader.u8():  # map
            reader.take(reader.compact())  # hashers, one byte each
            key_type = reader.compact()
        reader.compact()  # value
        reader.octets()  # default
        _skip_texts(reader)
        if name == "Tempo":
            netuid_type = key_type
    if is_subtensor and netuid_type is not None:
        entry = _consensus_entry(netuid_type, edits.consensus_type)
        edits.splices.append((count_at, count_end, compact(count + 1)))
        edits.splices.append((reader.offset, reader.offset, entry))


def _skip_type(reader: Reader) -> None:
    reader.compact()  # id
    _skip_texts(reader)  # path
    for _ in range(reader.compact()):
        reader.text()
        _skip_option(reader, Reader.compact)
    _SKIP_DEFINITION[reader.u8()](reader)
    _skip_texts(reader)


def _skip_texts(reader: Reader) -> None:
    for _ in range(reader.compact()):
        reader.octets()


def _skip_option(reader: Reader, skip: Callable[[Reader], object]) -> None:
    if reader.u8():
        skip(reader)


def _skip_fields(reader: Reader) -> None:
    for _ in range(reader.compact()):
        _skip_option(reader, Reader.octets)
        reader.compact()
        _skip_option(reader, Reader.octets)
        _skip_texts(reader)


def _skip_variants(reader: Reader) -> None:
    for _ in range(reader.compact()):
        reader.text()
        _skip_fields(reader)
        reader.u8()
        _skip_texts(reader)


def _skip_array(reader: Reader) -> None:
    reader.u32()
    reader.compact()


def _skip_tuple(reader: Reader) -> None:
    for _ in range(reader.compact()):
        reader.compact()


def _skip_bits(reader: Reader) -> None:
    reader.compact()
    reader.compact()


# composite, variant, sequence, array, tuple, primitive, compact, bit sequence
_SKIP_DEFINITION: tuple[Callable[[Reader], object], ...] = (
    _skip_fields,
    _skip_variants,
    Reader.compact,
    _skip_array,
    _skip_tuple,
    Reader.u8,
    Reader.compact,
    _skip_bits,
)
