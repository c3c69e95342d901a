"""The operator's own HTTP: GET /metrics and GET /status, behind a token in the data directory.

Path: Prometheus, `neurons/miner.py status` -> here -> status, metrics. Invariant: nothing is
answered without the token, which only who can read the data directory knows; it is a socket of its
own, on loopback unless the operator says otherwise.
"""

import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Exhausted
from chutes_core.base.failures import FailedTries
from chutes_core.miner.metrics import render
from chutes_core.miner.status import NodeStatus
from chutes_core.wire.neuron_http import App, Receive, Scope, Send

TOKEN_FILE = "operator-token"  # noqa: S105 - the name of a file
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SCHEME = b"Bearer "


def operator_token(data: Path) -> str:
    """Return the token; made once, readable by this user alone."""
    path = data / TOKEN_FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text().strip()


class Guarded:
    """Passes on what carries the token; everything else gets an error and nothing more."""

    def __init__(self, app: App, token: str, clock: Clock) -> None:
        self._app = app
        self._token = token.encode()
        self._failures = FailedTries(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> App | None:
        client = scope.get("client")
        address = client[0] if client else None
        try:
            self._failures.check(address)
            if self._is_good(dict(scope["headers"]).get(b"authorization", b"")):
                return None
            self._failures.count(address)
        except Exhausted as error:
            return _error(429, error.code, error.message, error.hint)
        return _error(
            401,
            "bad_operator_token",
            "this needs the miner's operator token",
            f"Authorization: Bearer, and what lies in data_dir/{TOKEN_FILE}",
        )

    def _is_good(self, said: bytes) -> bool:
        token = said.removeprefix(_SCHEME)
        return said.startswith(_SCHEME) and hmac.compare_digest(token, self._token)


def build_operator_http(token: str, status: Callable[[], NodeStatus], clock: Clock) -> Guarded:
    """Return the application."""
    app = FastAPI(title="chutes miner, operator", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/status")
    async def show_status() -> NodeStatus:
        return status()

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(render(status), media_type=_METRICS_TYPE)

    return Guarded(app, token, clock)


def _error(status: int, code: str, detail: str, hint: str) -> App:
    body = {"detail": detail, "code": code, "hint": hint}
    return JSONResponse(body, status_code=status)
