"""The text of an API key: `cpk_{key id}.{user id}.{secret}` (shared/PUBLIC_API, Signed requests).

Invariant: pure; the secret part leaves here only as its SHA-256, by which store and gateway find
the key (secrets are random, so a slow hash would protect nothing).
"""

import hashlib
import re
import secrets
import string
import uuid
from dataclasses import dataclass

SECRET_LENGTH = 32
_ALPHABET = string.ascii_letters + string.digits
_PATTERN = re.compile(r"cpk_([0-9a-f]{32})\.([0-9a-f]{32})\.([A-Za-z0-9]{32})")


@dataclass(frozen=True)
class KeyText:
    """What a presented key says: ids as uuids, and the hash (hex) of its secret part."""

    key_id: str
    user_id: str
    secret_sha256: str


def parse_key(text: str) -> KeyText | None:
    """Return what a key text says, or None where it is no key.

    >>> parse_key("cpk_nonsense") is None
    True
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    key_hex, user_hex, secret = match.groups()
    return KeyText(str(uuid.UUID(key_hex)), str(uuid.UUID(user_hex)), hash_secret(secret))


def format_key(key_id: str, user_id: str, secret: str) -> str:
    """Return the text that its owner is shown once."""
    return f"cpk_{uuid.UUID(key_id).hex}.{uuid.UUID(user_id).hex}.{secret}"


def new_secret() -> str:
    """Return a fresh secret part, 190 bits of randomness."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_LENGTH))


def hash_secret(secret: str) -> str:
    """Return the SHA-256 (hex) under which a key is found."""
    return hashlib.sha256(secret.encode()).hexdigest()


def presented_key(authorization: str | None, x_api_key: str | None) -> str | None:
    """Return the key text of a request's headers: Bearer, Basic or bare, or X-API-Key.

    >>> presented_key("Bearer cpk_x", None)
    'cpk_x'
    >>> presented_key(None, "cpk_y")
    'cpk_y'
    """
    if authorization:
        word, _, rest = authorization.strip().partition(" ")
        if not rest:
            return word
        if word.lower() in ("bearer", "basic"):
            return rest.strip()
        return None
    return x_api_key.strip() if x_api_key else None
