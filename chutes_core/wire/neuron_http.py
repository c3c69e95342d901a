"""The server side of signed control calls, as ASGI middleware for both neurons.

Under the guarded prefixes a request is read whole (bounded), verified (btauth/1), authorised by the
role's own rule, passed on with the caller in ``scope["chutes.caller"]``, and its answer is signed
over the request's nonce. Invariants: nothing behind the middleware runs for a caller that did not
pass, every answer after authentication, errors too, is signed, and no nonce is looked up on the
event loop.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import anyio
from anyio.to_thread import run_sync
from bittensor_core import Keypair

from chutes_core.base.clock import Clock
from chutes_core.base.errors import (
    ChutesError,
    Exhausted,
    Forbidden,
    TimedOut,
    TooLarge,
    Unauthenticated,
)
from chutes_core.base.failures import FailedTries
from chutes_core.wire.signing import Caller, NonceStore, sign_reply, verify_request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Authorise = Callable[[str], Awaitable[None]]
"""Given a hotkey (ss58), returns or raises Forbidden."""

CALLER = "chutes.caller"
MAX_BODY_BYTES = 1024 * 1024
BODY_TIMEOUT_S = 30.0
_STATUSES: tuple[tuple[type[ChutesError], int], ...] = (
    (Unauthenticated, 401),
    (Forbidden, 403),
    (TimedOut, 408),
    (TooLarge, 413),
    (Exhausted, 429),
)
_REFUSALS = tuple(family for family, _ in _STATUSES)


class SignedASGI:
    """Guards the given path prefixes of ``app``; other paths pass through untouched."""

    def __init__(
        self,
        app: App,
        *,
        keypair: Keypair,
        nonces: NonceStore,
        authorise: Authorise,
        clock: Clock,
        prefixes: tuple[str, ...],
        max_body_bytes: int = MAX_BODY_BYTES,
        body_timeout_s: float = BODY_TIMEOUT_S,
        failures: FailedTries | None = None,
    ) -> None:
        self._app = app
        self._keypair = keypair
        self._nonces = nonces
        self._authorise = authorise
        self._clock = clock
        self._prefixes = prefixes
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._failures = failures or FailedTries(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefixes):
            await self._app(scope, receive, send)
            return
        caller: Caller | None = None
        try:
            self._failures.check(_address(scope))
            body = await self._read_body(receive)
            caller = await self._proven(scope, body)
            await self._authorise(caller.hotkey_ss58)
        except _REFUSALS as error:
            await self._refuse(error, caller, send)
            return
        scope[CALLER] = caller
        await self._app(scope, _replay(body, receive), _SigningSend(self._keypair, caller, send))

    async def _read_body(self, receive: Receive) -> bytes:
        body = bytearray()
        with anyio.move_on_after(self._body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Unauthenticated("auth_malformed", "the request ended before its body did")
                body += message.get("body", b"")
                if len(body) > self._max_body_bytes:
                    raise TooLarge(
                        "body_too_large",
                        f"a control call has at most {self._max_body_bytes} bytes",
                        hint="send less; what is large has a path of its own",
                    )
                if not message.get("more_body", False):
                    return bytes(body)
        raise TimedOut(
            "body_timeout",
            f"the body did not come in {self._body_timeout_s:.0f} s",
            hint="send it at once, or check the network",
        )

    async def _proven(self, scope: Scope, body: bytes) -> Caller:
        """Return who signed the request; a failure counts against the address it came from.

        In a thread: the nonces are on disk, and whoever else writes there may be waited for.
        """
        try:
            return await run_sync(partial(self._verify, scope, body))
        except Unauthenticated:
            self._failures.count(_address(scope))
            raise

    def _verify(self, scope: Scope, body: bytes) -> Caller:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        query = scope.get("query_string", b"").decode("latin-1")
        raw_path = scope.get("raw_path") or scope["path"].encode()
        path = raw_path.split(b"?", 1)[0].decode("latin-1")
        return verify_request(
            headers,
            body,
            method=scope["method"],
            path=f"{path}?{query}" if query else path,
            self_hotkey_ss58=self._keypair.ss58_address,
            nonces=self._nonces,
            now_ns=self._clock.now_us() * 1_000,
        )

    async def _refuse(self, error: ChutesError, caller: Caller | None, send: Send) -> None:
        status = next(status for family, status in _STATUSES if isinstance(error, family))
        content = {"detail": error.message, "code": error.code, "hint": error.hint}
        body = json.dumps(content).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        if isinstance(error, Exhausted):
            headers["retry-after"] = str(error.retry_after_s)
        if caller is not None:
            headers |= sign_reply(
                self._keypair, request_nonce=caller.nonce, status=status, body=body
            )
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


class _SigningSend:
    """Holds the answer back until it is whole, then sends it with its signature."""

    def __init__(self, keypair: Keypair, caller: Caller, send: Send) -> None:
        self._keypair = keypair
        self._caller = caller
        self._send = send
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False) or self._start is None:
            return
        signature = sign_reply(
            self._keypair,
            request_nonce=self._caller.nonce,
            status=self._start["status"],
            body=bytes(self._body),
        )
        extra = [(name.lower().encode(), value.encode()) for name, value in signature.items()]
        await self._send({**self._start, "headers": [*self._start.get("headers", []), *extra]})
        await self._send({"type": "http.response.body", "body": bytes(self._body)})


def _address(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
