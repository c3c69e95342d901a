"""The key that opens shielded extrinsics.

Path: MevShield.NextKey -> client encrypts a whole signed extrinsic -> submit_encrypted -> the
block's author opens it here and includes it right behind its carrier. Keys rotate; the previous
one still opens, since a client may have read it a block ago. Invariant: `open` gives bytes or
None, never an exception, whatever a stranger sends.

Blob: twox128(key) ++ u16 length ++ ML-KEM-768 ciphertext ++ 24-byte nonce ++ XChaCha20-Poly1305.
"""

import xxhash
from Crypto.Cipher import ChaCha20_Poly1305
from kyber_py.ml_kem import ML_KEM_768

from chutes_core.base.errors import Invalid
from chutes_core.devnet.scale import Reader

ROTATE_BLOCKS = 64

_KEPT_KEYS = 2
_KEM_BYTES = 1_088
_TAG_BYTES = 16


class ShieldKeys:
    """The newest keys of the block's author."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, bytes] = {}

    @property
    def is_empty(self) -> bool:
        """True before the first key, and after a restart."""
        return not self._secrets

    def rotate(self) -> bytes:
        """Make a new key; return its public half (1184 bytes)."""
        public, secret = ML_KEM_768.keygen()
        self._secrets[_twox128(public)] = secret
        while len(self._secrets) > _KEPT_KEYS:
            del self._secrets[next(iter(self._secrets))]
        return bytes(public)

    def open(self, blob: bytes) -> bytes | None:
        """Decrypt a carrier's ciphertext, or return None."""
        try:
            reader = Reader(blob)
            secret = self._secrets.get(reader.take(16))
            kem = reader.take(reader.u16())
            nonce = reader.take(24)
            sealed = reader.rest()
        except Invalid:
            return None
        if secret is None or len(kem) != _KEM_BYTES or len(sealed) < _TAG_BYTES:
            return None
        cipher = ChaCha20_Poly1305.new(key=ML_KEM_768.decaps(secret, kem), nonce=nonce)
        try:
            return cipher.decrypt_and_verify(sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:])
        except ValueError:
            return None


def _twox128(data: bytes) -> bytes:
    return b"".join(
        xxhash.xxh64(data, seed=seed).intdigest().to_bytes(8, "little") for seed in (0, 1)
    )
