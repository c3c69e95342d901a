"""Ports of running jobs: http by its own address, any as a byte stream in an upgraded connection.

A run's ports are for whoever may see the run: its user, with a credential that may call the chute.
What passes costs nothing beyond the run's own time.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any
from urllib.parse import quote, unquote

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from chutes_core.base.errors import Forbidden, Invalid, NotFound, Unauthenticated
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.services import Services
from chutes_core.validator.domain.jobs import JobRun
from chutes_core.validator.jobs.ports import stream
from chutes_core.validator.jobs.ports.proxy import PortRequest, Proxy, ProxyLimits, check_head
from chutes_core.validator.jobs.ports.reach import Reach, declared
from chutes_core.wire.stream import UPGRADE

DOCUMENTED = ("GET", "POST")  # the others are the same
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
STREAM_EXTENSION = "chutes.stream"
_PORT_PATH = re.compile(r"/jobs/[^/]+/ports/")
_TOLD: dict[int | str, dict[str, Any]] = {
    200: {"description": "what the job's server answers", "content": {"*/*": {}}},
    **{status: {} for status in (409, 413, 414, 422, 429, 431, 502, 504)},
}
_SWITCHED: dict[int | str, dict[str, Any]] = {
    101: {"description": "a byte stream, in pieces: u32 length, big endian, and so many bytes"},
    **{status: {} for status in (409, 422, 502, 504)},
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Serving = Callable[[Receive, Send], Awaitable[None]]


def is_port_path(path: str) -> bool:
    """Tell whether a path is a job's own: what is sent there writes nothing of ours."""
    return _PORT_PATH.match(path) is not None


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /jobs/{job_id}/ports and /jobs/{job_id}/tunnels."""
    router = APIRouter(prefix="/jobs", tags=["jobs"])
    signed = APIRouter(route_class=bounded_route(0))
    door = _Door(services)
    by_key = Annotated[Principal, Depends(guards.by_key)]
    user = Annotated[Principal, Depends(guards.user("jobs"))]

    async def call_port(
        request: Request, caller: by_key, job_id: str, name: str, path: str
    ) -> Response:
        """Pass a request of any method on to an http port of a running job."""
        job = await run_sync(door.own, caller, job_id)
        return door.call(request, caller, job, name)

    @signed.get(
        "/{job_id}/tunnels/{name}", response_class=Response, status_code=101, responses=_SWITCHED
    )
    async def open_tunnel(request: Request, caller: user, job_id: str, name: str) -> Response:
        """Upgrade the connection to a byte stream to a port of a running job."""
        job = await run_sync(door.own, caller, job_id)
        return door.tunnel(request, caller, job, name)

    for method in METHODS:
        router.add_api_route(
            "/{job_id}/ports/{name}/{path:path}",
            call_port,
            methods=[method],
            operation_id=f"call_port_{method.lower()}",
            response_class=Response,
            responses=_TOLD,
            include_in_schema=method in DOCUMENTED,
        )
    router.include_router(signed)
    return router


class _Raw(Response):
    """An answer that is served over ASGI itself; errors before its start are answered as always."""

    def __init__(self, serving: Serving) -> None:
        super().__init__()
        self._serving = serving

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self._serving(receive, send)


class _Door:
    """Checks who comes, and opens the way."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reach: Reach = services.reach

    def own(self, caller: Principal, job_id: str) -> JobRun:
        """Return the caller's run.

        Raises:
            NotFound: ``no_such_run``. Forbidden: ``scope``.
        """
        job = self._services.jobs.get(caller, job_id)
        caller.require("chutes", "invoke", job.chute_id)
        return job

    def call(self, request: Request, caller: Principal, job: JobRun, name: str) -> Response:
        """Return what passes a request on to an http port."""
        port = declared(job, name)
        if port.proto != "http":
            raise Invalid(
                "not_http_port",
                f"the port {name} carries {port.proto}",
                hint=f"chutes jobs forward {job.job_id} {name}",
            )
        head = check_head(
            PortRequest(
                method=request.method,
                target=_target(request, job.job_id, name),
                headers=tuple(request.scope["headers"]),
                prefix=f"/jobs/{job.job_id}/ports/{name}",
                port=port.port,
            )
        )

        async def serve(receive: Receive, send: Send) -> None:
            async with self._reach.open(job, name, self._still(caller, job)) as way:
                proxy = Proxy(way.end, head, ProxyLimits())
                await proxy.run(receive, send, closed=way.over.wait())

        return _Raw(serve)

    def tunnel(self, request: Request, caller: Principal, job: JobRun, name: str) -> Response:
        """Return what makes a stream to a port of a request."""
        declared(job, name)
        if STREAM_EXTENSION not in request.scope.get("extensions", {}):
            raise Invalid(
                "upgrade_needed",
                "a tunnel is an upgraded connection of HTTP/1.1",
                hint=f"Connection: Upgrade, Upgrade: {UPGRADE}; a proxy in front must pass both on",
            )

        async def serve(receive: Receive, send: Send) -> None:
            async with self._reach.open(job, name, self._still(caller, job)) as way:
                await stream.serve(way, receive, send)

        return _Raw(serve)

    def _still(self, caller: Principal, job: JobRun) -> Callable[[], None]:
        """Return what raises once the caller's key is none any more."""
        key = caller.key

        def check() -> None:
            if key is None:
                return
            found = self._services.store.keys.get(key.key_id)
            now_s = self._services.clock.now_s()
            if found is None or found.revoked_at_s is not None or found.expired(now_s):
                raise Unauthenticated(
                    "bad_key", "this API key is not valid any more", hint="use another"
                )
            if not found.allows("chutes", "invoke", job.chute_id):
                raise Forbidden("scope", "this API key has no scope for it any more")

        return check


def _target(request: Request, job_id: str, name: str) -> bytes:
    """Return the path below the port, as it was written, and the query.

    Raises:
        NotFound: ``no_such_path``: what stands before it is written in another way.
    """
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    parts = raw.split(b"?", 1)[0].split(b"/", 5)
    ours = f"/jobs/{job_id}/ports/{name}"
    if len(parts) != 6 or unquote(b"/".join(parts[:5]).decode("ascii")) != ours:
        raise NotFound("no_such_path", "this is no path below a port", hint="write it plainly")
    query: bytes = request.scope.get("query_string", b"")
    return b"/" + parts[5] + (b"?" + query if query else b"")
