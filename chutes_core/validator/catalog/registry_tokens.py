"""Short-lived passes to an OCI registry that trusts this validator's certificate.

Path: a grant or a push -> `RegistryTokens.mint` -> a JWT that the engine shows to the registry,
which checks it against the certificate that its operator gave it (`auth.token.rootcertbundle`).
Invariant: a pass names one repository, what may be done there and who asked, and ends within
TOKEN_S; the key never leaves the folder.

Source: Docker registry v2 token authentication (JWT with access claims); RFC 7515 (x5c), RFC 7518
(ES256).
"""

import base64
import datetime
import json
import os
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

TOKEN_S = 3600
SERVICE = "chutes-images"
"""`auth.token.service` of the registry."""
_SKEW_S = 60
_YEARS = 20
_KEY, _CERTIFICATE = "registry-token.key", "registry-token.crt"


class RegistryTokens:
    """Signs passes.

    Args:
        key: P-256.
        certificate: self-signed, in DER.
        issuer: this validator's hotkey, `auth.token.issuer` of the registry.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: bytes, issuer: str) -> None:
        self._key = key
        self._head = {
            "typ": "JWT",
            "alg": "ES256",
            "x5c": [base64.b64encode(certificate).decode()],
        }
        self._issuer = issuer

    @classmethod
    def open(cls, folder: Path, *, issuer: str, now_s: int) -> "RegistryTokens":
        """Return the signer whose key and certificate lie in a folder, made at the first time."""
        key_path, certificate_path = folder / _KEY, folder / _CERTIFICATE
        if not (key_path.exists() and certificate_path.exists()):
            _make(key_path, certificate_path, issuer, now_s)
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{key_path} holds another kind of key")
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        der = certificate.public_bytes(serialization.Encoding.DER)
        return cls(key, der, issuer)

    def mint(self, path: str, actions: tuple[str, ...], *, subject: str, now_s: int) -> str:
        """Return a pass.

        Args:
            path: of the repository, without the registry's host.
            actions: of ``pull``, ``push``, ``delete``.
            subject: who asked, for the registry's log.
            now_s: Unix time.
        """
        claims = {
            "iss": self._issuer,
            "sub": subject,
            "aud": SERVICE,
            "nbf": now_s - _SKEW_S,
            "iat": now_s,
            "exp": now_s + TOKEN_S,
            "jti": secrets.token_hex(16),
            "access": [{"type": "repository", "name": path, "actions": list(actions)}],
        }
        signed = f"{_part(self._head)}.{_part(claims)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _make(key_path: Path, certificate_path: Path, issuer: str, now_s: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"chutes {issuer}"[:64])])
    begin = datetime.datetime.fromtimestamp(now_s, datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - day)
        .not_valid_after(begin + _YEARS * 365 * day)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key_path.parent.mkdir(parents=True, exist_ok=True)
    key_path.unlink(missing_ok=True)
    with os.fdopen(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _part(value: object) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
