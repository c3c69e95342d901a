"""All encryption of the project: X25519, HKDF-SHA256, AES-256-GCM, and the MAC of a preamble.

Path: the validator's launch key and the instance's key agree on root 0; after the proof both move
to root 1, which also depends on the graval answers. A root never encrypts: each TCP connection
derives two keys of its own from (root, both nonces, direction) and counts from 0 in each.
Invariant: no (key, nonce) pair repeats, for a connection's keys are new and its counters only
grow; at rest every record gets its own derived key.
"""

import hmac
import secrets
import uuid
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chutes_core.base.errors import ProtocolError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 32
TAG_BYTES: Final = 16
_GCM_NONCE_BYTES: Final = 12
PREAMBLE_MAGIC: Final = b"CHU1"
PREAMBLE_BYTES: Final = 4 + 1 + 16 + NONCE_BYTES + 32
UNPROVEN: Final = 0  # generation of the keys before the proof
PROVEN: Final = 1  # generation of the keys after it


@dataclass(frozen=True)
class KeyPair:
    """An ephemeral X25519 pair: raw 32-byte private and public keys."""

    private: bytes
    public: bytes

    @classmethod
    def generate(cls) -> "KeyPair":
        """Return a fresh pair."""
        return cls.from_private(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_private(cls, private: bytes) -> "KeyPair":
        """Return the pair that belongs to a stored private key."""
        key = X25519PrivateKey.from_private_bytes(private)
        return cls(private, key.public_key().public_bytes_raw())


def agree_root(
    own: KeyPair, peer_public: bytes, *, launch_id: str, validator_public: bytes
) -> bytes:
    """Return root 0 (32 bytes) of a launch; both sides get the same.

    ``validator_public`` is the validator's launch key: it fixes the order of the two public keys
    in the derivation whichever side computes it.

    Raises:
        ProtocolError: the peer's key is not a usable X25519 key.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(own.private).exchange(
            X25519PublicKey.from_public_bytes(peer_public)
        )
    except ValueError as error:
        raise ProtocolError("bad_public_key", "the peer's X25519 key is unusable") from error
    pair = own.public + peer_public if own.public == validator_public else peer_public + own.public
    return _hkdf(shared, salt=uuid.UUID(launch_id).bytes, info=b"chutes-root/0" + pair)


def rekey_root(root: bytes, answers: bytes, *, launch_id: str) -> bytes:
    """Return root 1: root 0 bound to the concatenated graval answers."""
    return _hkdf(root + answers, salt=uuid.UUID(launch_id).bytes, info=b"chutes-root/1")


@dataclass(frozen=True)
class Preamble:
    """The clear first bytes of a connection, by which the relay knows where it belongs."""

    generation: int
    launch_id: str
    nonce: bytes
    mac: bytes

    @classmethod
    def build(cls, *, ticket: bytes, launch_id: str, generation: int) -> "Preamble":
        """Return a preamble with a fresh nonce, authenticated by the launch's relay ticket."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        mac = _mac(ticket, _preamble_head(generation, launch_id, nonce))
        return cls(generation, launch_id, nonce, mac)

    @classmethod
    def parse(cls, data: bytes) -> "Preamble":
        """Read exactly PREAMBLE_BYTES bytes.

        Raises:
            ProtocolError: wrong length, magic or generation.
        """
        if len(data) != PREAMBLE_BYTES or data[:4] != PREAMBLE_MAGIC or data[4] > PROVEN:
            raise ProtocolError("bad_preamble", "the connection does not open with a preamble")
        launch_id = str(uuid.UUID(bytes=data[5:21]))
        return cls(data[4], launch_id, data[21:53], data[53:])

    def to_bytes(self) -> bytes:
        """Return the PREAMBLE_BYTES bytes that open the connection."""
        return _preamble_head(self.generation, self.launch_id, self.nonce) + self.mac

    def is_from(self, ticket: bytes) -> bool:
        """Tell, in constant time, whether the holder of ``ticket`` made this preamble."""
        head = _preamble_head(self.generation, self.launch_id, self.nonce)
        return hmac.compare_digest(self.mac, _mac(ticket, head))


@dataclass(frozen=True)
class ConnectionKeys:
    """The two AES-256 keys of one connection, one for each direction."""

    to_instance: bytes
    to_validator: bytes

    @classmethod
    def derive(
        cls, root: bytes, *, validator_nonce: bytes, instance_nonce: bytes
    ) -> "ConnectionKeys":
        """Derive both keys from a root and the nonces that the two sides have just drawn."""
        salt = validator_nonce + instance_nonce
        return cls(
            _hkdf(root, salt=salt, info=b"chutes-conn/1 to instance"),
            _hkdf(root, salt=salt, info=b"chutes-conn/1 to validator"),
        )


class Sealer:
    """Encrypts one direction of one connection; the counter is the nonce."""

    def __init__(self, key: bytes) -> None:
        self._encrypt = AESGCM(key).encrypt
        self._counter = 0

    def seal(self, plaintext: bytes, header: bytes) -> bytes:
        """Return the ciphertext and its 16-byte tag; ``header`` is authenticated beside it."""
        counter = self._counter
        self._counter = counter + 1
        return self._encrypt(counter.to_bytes(_GCM_NONCE_BYTES, "big"), plaintext, header)

    def framed(self, plaintext: bytes) -> bytes:
        """Return a whole frame: the ciphertext's length (u32, authenticated), then `seal`'s."""
        counter = self._counter
        self._counter = counter + 1
        header = (len(plaintext) + TAG_BYTES).to_bytes(4, "big")
        nonce = counter.to_bytes(_GCM_NONCE_BYTES, "big")
        return header + self._encrypt(nonce, plaintext, header)


class Opener:
    """Decrypts one direction of one connection, in order."""

    def __init__(self, key: bytes) -> None:
        self._decrypt = AESGCM(key).decrypt
        self._counter = 0

    def open(self, ciphertext: bytes, header: bytes) -> bytes:
        """Return the plaintext.

        Raises:
            ProtocolError: altered, reordered, or sealed under other keys.
        """
        counter = self._counter
        self._counter = counter + 1
        try:
            return self._decrypt(counter.to_bytes(_GCM_NONCE_BYTES, "big"), ciphertext, header)
        except InvalidTag as error:
            raise ProtocolError("bad_seal", "a sealed frame does not authenticate") from error


def seal_at_rest(master: bytes, plaintext: bytes, *, purpose: str) -> bytes:
    """Encrypt a record for the store under a key derived for it alone (32-byte salt in front)."""
    salt = secrets.token_bytes(KEY_BYTES)
    key = _hkdf(master, salt=salt, info=b"chutes-rest/1 " + purpose.encode())
    return salt + AESGCM(key).encrypt(bytes(12), plaintext, purpose.encode())


def open_at_rest(master: bytes, sealed: bytes, *, purpose: str) -> bytes:
    """Decrypt a record of the store.

    Raises:
        ProtocolError: another master key or purpose, or altered bytes.
    """
    key = _hkdf(master, salt=sealed[:KEY_BYTES], info=b"chutes-rest/1 " + purpose.encode())
    try:
        return AESGCM(key).decrypt(bytes(12), sealed[KEY_BYTES:], purpose.encode())
    except InvalidTag as error:
        raise ProtocolError("bad_seal_at_rest", "a stored record does not authenticate") from error


def _preamble_head(generation: int, launch_id: str, nonce: bytes) -> bytes:
    return PREAMBLE_MAGIC + bytes([generation]) + uuid.UUID(launch_id).bytes + nonce


def _mac(ticket: bytes, data: bytes) -> bytes:
    return hmac.new(ticket, data, sha256).digest()


def _hkdf(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)
