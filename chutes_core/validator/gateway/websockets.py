"""Websockets of calls: which handshakes are sound, how many are open, who refuses them.

Path: front -> here -> admission; once an instance has answered 101 the bytes go by switched.py.
Rules of a handshake: RFC 6455, 4.2.1 and 4.2.2 (and RFC 9110, 7.8). Invariant: a handshake that
could be read in two ways is refused, and whatever its answer, nothing behind it is read as HTTP.
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chutes_core.base.errors import Exhausted, Invalid, NotFound
from chutes_core.base.ids import new_id
from chutes_core.validator.gateway.aliases import Choices
from chutes_core.validator.gateway.asgi import Receive, Scope, Send
from chutes_core.validator.gateway.reply import Reply
from chutes_core.validator.gateway.target import Target
from chutes_core.validator.gateway.upgrades import CALLER_STREAM, CallerStream, Upgrade
from chutes_core.wire.call import WEBSOCKET

VERSION = b"13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes
_ONCE = (b"upgrade", b"sec-websocket-key", b"sec-websocket-version")
_HINT = "send one handshake of RFC 6455: any websocket client's library does"
_HOW = "a passthrough cord with public_api_method='GET' carries websockets, at /c/{slug}{path}"


def upgrade_of(scope: Scope) -> Upgrade | None:
    """Return what a request wants to become; None where it is ordinary.

    Raises:
        Invalid: ``bad_handshake`` (400), ``websocket_version`` (426), or
            ``websocket_unsupported`` (501): this server carries none.
    """
    caller: CallerStream | None = scope.get("extensions", {}).get(CALLER_STREAM)
    if caller is None:
        if (b"upgrade", WEBSOCKET.encode()) in ((n, v.lower()) for n, v in scope["headers"]):
            raise _not_here()
        return None
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _ONCE and name in found:
            raise _bad(f"it has two lines of {name.decode()}")
        found[name] = value
    if found.get(b"upgrade", b"").strip().lower() != WEBSOCKET.encode():
        raise _bad("it asks for other protocols too")
    if not caller.sound:
        raise _bad("it is no GET of HTTP/1.1 with Connection: Upgrade and without a body")
    key, version = found.get(b"sec-websocket-key"), found.get(b"sec-websocket-version")
    if version is None or key is None or not _KEY.fullmatch(key.strip()):
        raise _bad("it lacks a Sec-WebSocket-Key of 16 bytes, or a Sec-WebSocket-Version")
    if version.strip() != VERSION:
        raise Invalid(
            "websocket_version",
            "only version 13 of websockets is spoken",
            hint="send Sec-WebSocket-Version: 13",
        )
    digest = hashlib.sha1(key.strip() + _GUID, usedforsecurity=False).digest()
    return Upgrade(caller, base64.b64encode(digest).decode())


def check_form(target: Target) -> None:
    """Refuse a websocket where it is not said of which chute.

    Raises:
        NotFound: ``no_websocket``.
    """
    if target.form != "slug":
        raise NotFound("no_websocket", "no websocket is served by model", hint=_HOW)


def check_carried(choices: Choices) -> None:
    """Refuse a websocket of a cord that is a function.

    Raises:
        NotFound: ``no_websocket``.
    """
    for one in choices.calls:
        if not one.cord.passthrough:
            name = one.cord.function
            raise NotFound("no_websocket", f"cord {name!r} carries no websockets", hint=_HOW)


class OpenWebsockets:
    """How many each key has open; at most ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def of(self, key_id: str, upgrade: Upgrade | None) -> Iterator[None]:
        """Count one more for as long as it lasts; an ordinary call is none.

        Raises:
            Exhausted: ``too_many_websockets``.
        """
        if upgrade is None:
            yield
            return
        if self._open[key_id] >= self._most:
            raise Exhausted(
                "too_many_websockets",
                f"this key has {self._most} websockets open",
                hint="close some, or use one for more",
                retry_after_s=5,
            )
        self._open[key_id] += 1
        try:
            yield
        finally:
            self._open[key_id] -= 1
            if not self._open[key_id]:
                del self._open[key_id]


def unsupported(why: str, hint: str) -> Invalid:
    """Return what is said where a websocket cannot be carried at all (501)."""
    return Invalid("websocket_unsupported", why, hint=hint)


async def refuse_on_reference(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse an ASGI websocket: with a typed error where the server can send one, else with 403.

    ASGI servers parse a websocket's frames, and the gateway carries its bytes.
    """
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1003, "reason": "websocket_unsupported"})
        return

    async def as_http(message: dict[str, object]) -> None:
        await send(message | {"type": f"websocket.{message['type']}"})

    await Reply(as_http, new_id(), "GET").error(_not_here(), 0)  # type: ignore[arg-type]


def _not_here() -> Invalid:
    return unsupported(
        "this validator's server carries no websockets",
        "its operator can serve by data_plane=plane, which does",
    )


def _bad(why: str) -> Invalid:
    return Invalid("bad_handshake", f"this is no handshake of a websocket: {why}", hint=_HINT)
