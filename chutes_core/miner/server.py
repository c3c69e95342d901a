"""The miner's own HTTP: what validators may ask it.

GET /ping is open; GET /inventory goes through `SignedASGI` (btauth/1, replay store on disk, then
`CallerPolicy`) and its answer is signed. Invariant: nothing about the node is told to anyone who
is not a permitted validator of this subnet.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from bittensor_core import Keypair
from fastapi import FastAPI

from chutes_core.base.clock import Clock
from chutes_core.wire.control import Inventory
from chutes_core.wire.neuron_http import App, Authorise, SignedASGI
from chutes_core.wire.signing import NonceStore

_KEEP_ALIVE_S = 15
_MAX_CONCURRENT = 256


def build_http(
    *,
    keypair: Keypair,
    nonces: NonceStore,
    authorise: Authorise,
    clock: Clock,
    inventory: Callable[[], Inventory],
) -> App:
    """Return the ASGI application."""
    app = FastAPI(title="chutes miner", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/ping")
    async def ping() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/inventory")
    async def show_inventory() -> Inventory:
        return inventory()

    return SignedASGI(
        app,
        keypair=keypair,
        nonces=nonces,
        authorise=authorise,
        clock=clock,
        prefixes=("/inventory",),
    )


class HttpServer:
    """uvicorn on a bound socket, without its own signal handlers."""

    def __init__(self, app: App, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            limit_concurrency=_MAX_CONCURRENT,
        )
        self._server = _Quiet(config)
        self._listening = listening
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve in the background; requests wait in the socket's queue until it runs."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listening]))

    async def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to app.py, which has more to end than HTTP."""
        yield
