"""The miner's own HTTP: what validators may ask it.

Every request goes through `Paced`. GET /ping is open; GET /inventory and GET /logs/{launch id} go
through `SignedASGI` (btauth/1, replay store on disk, then `CallerPolicy`) and their answers are
signed. Invariant: nothing about the node is told to anyone who is not a permitted validator of this
subnet, and nothing of an instance to another validator than its own.
"""

import asyncio
import socket
from collections.abc import Callable

from bittensor_core import Keypair
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from chutes_core.base.clock import Clock
from chutes_core.base.errors import NotFound
from chutes_core.miner.pace import Pace, Paced
from chutes_core.wire.control import Inventory, LogTail
from chutes_core.wire.http_server import HttpLimits, new_server
from chutes_core.wire.neuron_http import CALLER, App, Authorise, SignedASGI
from chutes_core.wire.signing import NonceStore

KEEP_ALIVE_S = 15
MAX_CONNECTIONS = 256
MAX_CONNECTIONS_PER_ADDRESS = 64
GRACE_S = 1
LIMITS = HttpLimits(
    keep_alive_s=KEEP_ALIVE_S,
    max_connections=MAX_CONNECTIONS,
    max_per_address=MAX_CONNECTIONS_PER_ADDRESS,
)
OPERATOR_CONNECTIONS = 16
OPERATOR_LIMITS = HttpLimits(
    keep_alive_s=KEEP_ALIVE_S, max_connections=OPERATOR_CONNECTIONS, max_per_address=None
)


def build_http(
    *,
    keypair: Keypair,
    nonces: NonceStore,
    authorise: Authorise,
    clock: Clock,
    inventory: Callable[[], Inventory],
    log_of: Callable[[str, str], str],
) -> App:
    """Return the ASGI application; ``log_of`` (caller, launch id) returns an instance's tail."""
    app = FastAPI(title="chutes miner", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(NotFound, _not_found)

    @app.get("/ping")
    async def ping() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/inventory")
    async def show_inventory() -> Inventory:
        return inventory()

    @app.get("/logs/{launch_id}")
    async def show_log(request: Request, launch_id: str) -> LogTail:
        caller = request.scope[CALLER]
        text = await asyncio.to_thread(log_of, caller.hotkey_ss58, launch_id)
        return LogTail(launch_id=launch_id, text=text)

    signed = SignedASGI(
        app,
        keypair=keypair,
        nonces=nonces,
        authorise=authorise,
        clock=clock,
        prefixes=("/inventory", "/logs/"),
    )
    return Paced(signed, Pace(clock))


async def _not_found(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, NotFound)
    body = {"detail": error.message, "code": error.code, "hint": error.hint}
    return JSONResponse(body, status_code=404)


class HttpServer:
    """uvicorn on a bound socket, without its own signal handlers."""

    def __init__(self, app: App, listening: socket.socket, limits: HttpLimits = LIMITS) -> None:
        self._server = new_server(app, limits, grace_s=GRACE_S)
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
        self._listening.close()
