"""Signed HTTP between neurons and from users: btauth/1, its signed replies, and the public form.

`btauth/1` is the protocol of `bittensor.http_auth` (bittensor 11), written here on the small
`bittensor_core` wheel because importing `bittensor` costs a second; a protocol test holds the two
against each other byte for byte. Invariant: checks run in a fixed order (shape, receiver,
freshness, signature, replay) and the replay store is written only after the signature verified.

The public form (`X-Chutes-*`, shared/PUBLIC_API) binds neither method nor path; it exists so that
the public client keeps working.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bittensor_core import CRYPTO_SR25519, Keypair
from bittensor_core import verify as verify_signature

from chutes_core.base.errors import Unauthenticated

PROTOCOL = "btauth/1"
MAX_AGE_S = 10
ALLOWED_SKEW_S = 2
USER_WINDOW_S = 60

_VERSION = "X-Bittensor-Version"
_HOTKEY = "X-Bittensor-Hotkey"
_RECEIVER = "X-Bittensor-Receiver"
_NONCE = "X-Bittensor-Nonce"
_SIGNATURE = "X-Bittensor-Signature"
_REPLY_HOTKEY = "X-Chutes-Reply-Hotkey"
_REPLY_SIGNATURE = "X-Chutes-Reply-Signature"
_USER_HOTKEY = "X-Chutes-Hotkey"
_USER_NONCE = "X-Chutes-Nonce"
_USER_SIGNATURE = "X-Chutes-Signature"


class NonceStore(Protocol):
    """Replay protection that outlives the freshness window (and, on a server, a restart)."""

    def check_and_store(self, hotkey_ss58: str, nonce: str, expires_s: int) -> bool:
        """Record the pair and return True, or return False where it was recorded before."""
        ...


@dataclass(frozen=True)
class Caller:
    """Who signed a request that passed every check, and the nonce that a reply must answer."""

    hotkey_ss58: str
    nonce: str


def sign_request(
    keypair: Keypair, *, method: str, path: str, body: bytes, receiver_ss58: str, nonce_ns: int
) -> dict[str, str]:
    """Return the btauth/1 headers for one request.

    Args:
        keypair: the sender's hotkey (sr25519).
        method: HTTP method.
        path: the request target exactly as sent, with its query.
        body: raw body bytes.
        receiver_ss58: hotkey of the neuron that is called.
        nonce_ns: Unix time in nanoseconds, fresh for each try.
    """
    text = _btauth_text(method, path, body, str(nonce_ns), keypair.ss58_address, receiver_ss58)
    return {
        _VERSION: "1",
        _HOTKEY: keypair.ss58_address,
        _RECEIVER: receiver_ss58,
        _NONCE: str(nonce_ns),
        _SIGNATURE: "0x" + bytes(keypair.sign(text)).hex(),
    }


def verify_request(
    headers: Mapping[str, str],
    body: bytes,
    *,
    method: str,
    path: str,
    self_hotkey_ss58: str,
    nonces: NonceStore,
    now_ns: int,
) -> Caller:
    """Return the authenticated caller of a btauth/1 request.

    Raises:
        Unauthenticated: codes auth_malformed, auth_wrong_receiver, auth_stale (its hint carries
            this server's time), auth_bad_signature, auth_replayed.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    if lowered.get(_VERSION.lower()) != "1":
        raise Unauthenticated("auth_malformed", f"{_VERSION} is missing or not 1")
    sender = _required(lowered, _HOTKEY)
    nonce = _required(lowered, _NONCE)
    signature = _hex(_required(lowered, _SIGNATURE))
    if lowered.get(_RECEIVER.lower()) != self_hotkey_ss58:
        raise Unauthenticated(
            "auth_wrong_receiver",
            "the request was signed for another receiver",
            hint=f"this neuron is {self_hotkey_ss58}",
        )
    if not nonce.isascii() or not nonce.isdigit() or len(nonce) > 20:
        raise Unauthenticated("auth_malformed", f"{_NONCE} is no decimal integer")
    _check_window(int(nonce), now_ns, MAX_AGE_S * 10**9, ALLOWED_SKEW_S * 10**9)
    text = _btauth_text(method, path, body, nonce, sender, self_hotkey_ss58)
    _check_signature(text, signature, sender)
    expires_s = now_ns // 10**9 + MAX_AGE_S + ALLOWED_SKEW_S + 1
    _check_replay(nonces, sender, nonce, expires_s)
    return Caller(sender, nonce)


def sign_reply(keypair: Keypair, *, request_nonce: str, status: int, body: bytes) -> dict[str, str]:
    """Return headers that bind a reply to the request it answers."""
    text = _reply_text(request_nonce, status, body, keypair.ss58_address)
    return {
        _REPLY_HOTKEY: keypair.ss58_address,
        _REPLY_SIGNATURE: "0x" + bytes(keypair.sign(text)).hex(),
    }


def verify_reply(
    headers: Mapping[str, str],
    body: bytes,
    *,
    request_nonce: str,
    status: int,
    peer_hotkey_ss58: str,
) -> None:
    """Check that ``peer_hotkey_ss58`` gave this reply to the request with that nonce.

    Raises:
        Unauthenticated: the reply is unsigned, signed by another key, or altered.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    if _required(lowered, _REPLY_HOTKEY) != peer_hotkey_ss58:
        raise Unauthenticated("reply_wrong_peer", "the reply was signed by another hotkey")
    signature = _hex(_required(lowered, _REPLY_SIGNATURE))
    _check_signature(
        _reply_text(request_nonce, status, body, peer_hotkey_ss58), signature, peer_hotkey_ss58
    )


def sign_user(
    keypair: Keypair, *, body: bytes | None, purpose: str, nonce_s: int
) -> dict[str, str]:
    """Return the public form's headers: over the body's hash, or over a purpose without a body."""
    text = _user_text(keypair.ss58_address, str(nonce_s), body, purpose)
    return {
        _USER_HOTKEY: keypair.ss58_address,
        _USER_NONCE: str(nonce_s),
        _USER_SIGNATURE: bytes(keypair.sign(text)).hex(),
    }


def verify_user(
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    purpose: str,
    target: str,
    nonces: NonceStore,
    now_s: int,
    window_s: int = USER_WINDOW_S,
) -> Caller:
    """Return the authenticated user of a request in the public form; each is accepted once.

    Args:
        headers: the request's, with its signature.
        body: raw body bytes, or None where the purpose was signed instead.
        purpose: what this route's calls without a body sign.
        target: method and request target ("GET /images/?limit=1"); what is signed without a body
            does not name them, and they tell two honest calls of the same second apart.
        nonces: what was accepted before.
        now_s: Unix time of this server.
        window_s: how far the sender's clock may be off, either way.

    Raises:
        Unauthenticated: auth_malformed, auth_stale, auth_bad_signature, auth_replayed.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    sender = _required(lowered, _USER_HOTKEY)
    nonce = _required(lowered, _USER_NONCE)
    signature = _hex(_required(lowered, _USER_SIGNATURE))
    if not nonce.isascii() or not nonce.isdigit() or len(nonce) > 12:
        raise Unauthenticated("auth_malformed", f"{_USER_NONCE} is no Unix time in seconds")
    window_ns = window_s * 10**9
    _check_window(int(nonce) * 10**9, now_s * 10**9, window_ns, window_ns)
    text = _user_text(sender, nonce, body, purpose)
    _check_signature(text, signature, sender)
    # The nonce has whole seconds, so two honest requests may share it, and without a body they may
    # even share the text: a list of images, and a moment later the log of one.
    told_apart = text if body else text + b"\n" + target.encode()
    replay_key = f"{nonce}:{hashlib.sha256(told_apart).hexdigest()[:32]}"
    _check_replay(nonces, sender, replay_key, now_s + 2 * window_s + 1)
    return Caller(sender, nonce)


def check_text_signature(text: str, signature_hex: str, signer_ss58: str) -> None:
    """Check a signature over a plain text (leases, links, discovery).

    Raises:
        Unauthenticated: auth_malformed or auth_bad_signature.
    """
    _check_signature(text.encode(), _hex(signature_hex), signer_ss58)


def _btauth_text(
    method: str, path: str, body: bytes, nonce: str, sender: str, receiver: str
) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    lines = (PROTOCOL, "sr25519", method.upper(), path, digest, nonce, sender, receiver)
    return "\n".join(lines).encode()


def _reply_text(request_nonce: str, status: int, body: bytes, hotkey: str) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    return "\n".join(("chutes-reply/1", request_nonce, str(status), digest, hotkey)).encode()


def _user_text(hotkey: str, nonce: str, body: bytes | None, purpose: str) -> bytes:
    last = hashlib.sha256(body).hexdigest() if body else purpose
    return f"{hotkey}:{nonce}:{last}".encode()


def _required(lowered: Mapping[str, str], name: str) -> str:
    value = lowered.get(name.lower())
    if not value:
        raise Unauthenticated("auth_malformed", f"header {name} is missing")
    return value


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise Unauthenticated("auth_malformed", "the signature is not hexadecimal") from error


def _check_window(nonce_ns: int, now_ns: int, past_ns: int, future_ns: int) -> None:
    if not now_ns - past_ns <= nonce_ns <= now_ns + future_ns:
        raise Unauthenticated(
            "auth_stale",
            "the request was signed too long ago, or in the future",
            hint=f"this server's clock says {now_ns // 10**9}: check yours (NTP) and sign anew",
            server_time_s=now_ns // 10**9,
        )


def _check_signature(text: bytes, signature: bytes, signer_ss58: str) -> None:
    try:
        valid = verify_signature(text, signature, signer_ss58, CRYPTO_SR25519)
    except ValueError as error:
        raise Unauthenticated("auth_malformed", "bad address or signature length") from error
    if not valid:
        raise Unauthenticated("auth_bad_signature", "the signature does not fit this request")


def _check_replay(nonces: NonceStore, sender: str, nonce: str, expires_s: int) -> None:
    if not nonces.check_and_store(sender, nonce, expires_s):
        raise Unauthenticated("auth_replayed", "this signed request was already accepted once")
