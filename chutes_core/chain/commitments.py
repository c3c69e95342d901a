"""Text in a chain commitment: to and from the Commitments pallet's fields.

Between chain/client and wire/discovery (which says what the text means). Invariant: what is
written is one `Raw<n>` field; what is read is the joined bytes of plain fields, and everything else
(hashes, timelocked payloads, bytes that are no UTF-8) reads as no text.
"""

from collections.abc import Mapping
from typing import Any

from chutes_core.base.errors import Invalid

MAX_COMMITMENT_BYTES = 128
"""The pallet's widest plain field is Raw128."""


def commitment_fields(text: str) -> dict[str, Any]:
    """Return the call argument that commits ``text``.

    Raises:
        Invalid: ``commitment_too_long``.
    """
    raw = text.encode()
    if not 0 < len(raw) <= MAX_COMMITMENT_BYTES:
        raise Invalid(
            "commitment_too_long",
            f"a commitment holds 1 to {MAX_COMMITMENT_BYTES} bytes, not {len(raw)}",
        )
    return {"fields": [{f"Raw{len(raw)}": "0x" + raw.hex()}]}


def commitment_text(record: Mapping[str, Any] | None) -> str:
    """Return the plain text of a stored commitment, empty where it holds none."""
    info = record.get("info") if isinstance(record, Mapping) else None
    fields = info.get("fields") if isinstance(info, Mapping) else None
    raw = b""
    for field in fields or ():
        for variant, value in field.items() if isinstance(field, Mapping) else ():
            if variant.startswith("Raw") and isinstance(value, str):
                raw += _bytes(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return ""


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        return b""
