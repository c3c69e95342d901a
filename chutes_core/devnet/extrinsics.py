"""From bytes to a checked extrinsic.

Path: RPC -> `decode_extrinsic` -> pool -> block, where it is checked again. Invariant: nothing
reaches `executor` whose signature does not cover this chain's genesis, runtime versions, era and
nonce.

Layout (extrinsic version 4, signed): compact length, 0x84, 0x00 ++ public key, signature type ++
signature, era, compact nonce, compact tip, metadata-hash mode, call. Signed payload: call ++ (era,
nonce, tip, mode) ++ (spec u32, tx u32, genesis hash, era block hash, Option<metadata hash>); its
blake2b-256 when longer than 256 bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import bittensor_core

from chutes_core.base.errors import Invalid
from chutes_core.devnet.codec import SS58_FORMAT, Codec, blake2_256
from chutes_core.devnet.dispatch import Call
from chutes_core.devnet.era import Era, read_era
from chutes_core.devnet.scale import Reader, compact, octets
from chutes_core.devnet.version import RuntimeVersion

MAX_EXTRINSIC_BYTES = 3 * 1024 * 1024

_SIGNED_V4 = 0x84
_BARE_V5 = 0x05
_SIGNATURE_TYPES = {0: ("ed25519", 0), 1: ("sr25519", 1)}
_LONG_PAYLOAD_BYTES = 256


class TransactionRefused(Exception):
    """A transaction that no block will take, with the code and words that nodes use.

    Args:
        code: JSON-RPC error code of the ``author`` API.
        message: its class, e.g. ``Invalid Transaction``.
        data: the reason.
    """

    def __init__(self, code: int, message: str, data: str) -> None:
        super().__init__(f"{message}: {data}")
        self.code = code
        self.message = message
        self.data = data


def invalid_transaction(reason: str) -> TransactionRefused:
    """Return the refusal with code 1010."""
    return TransactionRefused(1010, "Invalid Transaction", reason)


BAD_SIGNATURE = "Transaction has a bad signature"
OUTDATED = "Transaction is outdated"
CANNOT_PAY = "Inability to pay some fees (e.g. account balance too low)"
ANCIENT_BIRTH = "Transaction has an ancient birth block"


@dataclass(frozen=True)
class Extrinsic:
    """A signed extrinsic, decoded.

    Args:
        raw: all bytes, length prefix included.
        hash: blake2b-256 of ``raw``.
        signer: SS58 address.
        signature: 64 bytes.
        crypto_type: 0 ed25519, 1 sr25519.
        extra: the signed extensions as they travel: era, nonce, tip, mode.
        metadata_mode: 1 when the signature binds a metadata hash.
    """

    raw: bytes
    hash: bytes
    signer: str
    signature: bytes
    crypto_type: int
    era: Era
    nonce: int
    tip: int
    metadata_mode: int
    extra: bytes
    call: Call


def decode_extrinsic(codec: Codec, raw: bytes) -> Extrinsic:
    """Decode a signed extrinsic.

    Raises:
        TransactionRefused: 1001 for bytes that are not one, 1010/1011 for kinds not taken here.
    """
    try:
        return _decode(codec, raw)
    except Invalid as error:
        raise TransactionRefused(1001, "Extrinsic has invalid format", error.message) from error


def _decode(codec: Codec, raw: bytes) -> Extrinsic:
    if len(raw) > MAX_EXTRINSIC_BYTES:
        raise invalid_transaction("Transaction would exhaust the block limits")
    reader = Reader(raw)
    if reader.compact() != reader.remaining:
        raise Invalid("length_mismatch", "the length prefix does not match")
    version = reader.u8()
    if version in {_BARE_V5, 0x04}:
        raise TransactionRefused(
            1011, "Unknown Transaction Validity", "Could not find an unsigned validator"
        )
    if version != _SIGNED_V4:
        raise Invalid("version_unknown", f"extrinsic version byte {version:#04x}")
    if reader.u8() != 0:
        raise Invalid("address_kind", "only MultiAddress::Id signers are taken")
    public_key = reader.take(32)
    kind = _SIGNATURE_TYPES.get(reader.u8())
    if kind is None:
        raise Invalid("signature_kind", "only ed25519 and sr25519 signatures are taken")
    signature = reader.take(64)
    extra_at = reader.offset
    era, nonce, tip, mode = read_era(reader), reader.compact(), reader.compact(), reader.u8()
    if nonce >= 1 << 32 or tip >= 1 << 64:
        raise Invalid("extra_out_of_range", "the nonce or the tip is too large")
    extra = raw[extra_at : reader.offset]
    return Extrinsic(
        raw=raw,
        hash=blake2_256(raw),
        signer=bittensor_core.ss58_encode(public_key, SS58_FORMAT),
        signature=signature,
        crypto_type=kind[1],
        era=era,
        nonce=nonce,
        tip=tip,
        metadata_mode=mode,
        extra=extra,
        call=codec.decode_call(reader.rest()),
    )


def check_signature(
    extrinsic: Extrinsic,
    *,
    genesis_hash: bytes,
    version: RuntimeVersion,
    block: int,
    block_hash: Callable[[int], bytes | None],
) -> None:
    """Verify the signature as of ``block``, the block that would include it.

    ``block_hash`` gives the hash of a sealed block by its height, None when it is unknown.

    Raises:
        TransactionRefused: unknown era block, metadata hash asked for, or a wrong signature.
    """
    anchor = block_hash(extrinsic.era.birth(block))
    if anchor is None:
        raise invalid_transaction(ANCIENT_BIRTH)
    if extrinsic.metadata_mode != 0:  # the patched metadata has no published digest
        raise invalid_transaction("Metadata hash checking is not supported by devnet")
    implied = (
        version.spec.to_bytes(4, "little")
        + version.transaction.to_bytes(4, "little")
        + genesis_hash
        + anchor
        + b"\x00"
    )
    payload = extrinsic.call.data + extrinsic.extra + implied
    if len(payload) > _LONG_PAYLOAD_BYTES:
        payload = blake2_256(payload)
    if not bittensor_core.verify_signature(
        payload, extrinsic.signature, extrinsic.signer, extrinsic.crypto_type
    ):
        raise invalid_transaction(BAD_SIGNATURE)


def forge(codec: Codec, *, signer: str, nonce: int, call: bytes) -> Extrinsic:
    """Return an immortal extrinsic with an empty signature, for a fault that trusts it."""
    key = codec.encode("AccountId32", signer)
    extra = b"\x00" + compact(nonce) + b"\x00\x00"
    body = bytes([_SIGNED_V4]) + b"\x00" + key + b"\x01" + bytes(64) + extra + call
    return decode_extrinsic(codec, octets(body))


def inherent(call: bytes) -> bytes:
    """Return the unsigned extrinsic that the block's author makes of a call."""
    return octets(bytes([_BARE_V5]) + call)


def header_bytes(parent: bytes, number: int, state_root: bytes, extrinsics_root: bytes) -> bytes:
    """Return the SCALE encoding of a header without digest items."""
    return parent + compact(number) + state_root + extrinsics_root + compact(0)
