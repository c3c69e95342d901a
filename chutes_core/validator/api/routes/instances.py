"""Logs of an instance, streamed to the owner of its chute while it lives."""

import json
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from chutes_core.base.errors import ChutesError, NotFound
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.openapi import EVENTS
from chutes_core.validator.api.services import Services
from chutes_core.validator.domain.launches import REASON_TEXT, Launch, LaunchState
from chutes_core.validator.launches.logs import fresh, last_lines

MAX_BODY_BYTES = 1024
MAX_BACKFILL = 10_000
MAX_STREAM_S = 3_600
POLL_S = 1.0
KEEP_ALIVE_POLLS = 15


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /instances."""
    router = APIRouter(
        prefix="/instances", tags=["instances"], route_class=bounded_route(MAX_BODY_BYTES)
    )
    user = Annotated[Principal, Depends(guards.user("logs"))]

    @router.get("/{instance_id}/logs", response_class=StreamingResponse, responses=EVENTS)
    async def read_logs(
        caller: user,
        instance_id: str,
        backfill: Annotated[int, Query(ge=0, le=MAX_BACKFILL)] = 100,
        *,
        follow: Annotated[bool, Query()] = True,
    ) -> StreamingResponse:
        launch = await run_sync(_launch, services, caller, instance_id)
        return StreamingResponse(
            _stream(services, launch, backfill, follow=follow), media_type="text/event-stream"
        )

    return router


def _launch(services: Services, caller: Principal, instance_id: str) -> Launch:
    launch = services.store.launches.get(instance_id)
    chute = None if launch is None else services.store.chutes.get_any(launch.chute_id)
    if launch is None or chute is None or chute.user_id != caller.account.user_id:
        raise NotFound(
            "no_such_instance", "no chute of yours has this instance", hint="chutes status NAME"
        )
    caller.require("chutes", "read", chute.chute_id)
    return launch


async def _stream(
    services: Services, launch: Launch, backfill: int, *, follow: bool
) -> AsyncIterator[str]:
    started_us = services.clock.monotonic_us()
    seen, first, quiet = "", True, 0
    while True:
        current = await run_sync(services.store.launches.get, launch.launch_id)
        if current is None or current.state is LaunchState.GONE:
            yield _event(_last_words(current or launch))
            return
        try:
            text = await services.tail(current)
            text = text[: text.rfind("\n") + 1]  # the rest of a line comes with its end
        except ChutesError as error:
            text, quiet = seen, quiet + 1
            if first:
                yield _event(f"the log cannot be read now: {error.message}\n")
        new = fresh(seen, text)
        shown = last_lines(new, backfill) if first else new
        seen, first = text, False
        for line in shown.splitlines():
            quiet = 0
            yield _event(line)
        waited_s = (services.clock.monotonic_us() - started_us) // 1_000_000
        if not follow or waited_s > MAX_STREAM_S:
            return
        quiet += 1
        if quiet % KEEP_ALIVE_POLLS == 0:
            yield ": nothing new\n\n"
        await anyio.sleep(POLL_S)


def _event(line: str) -> str:
    return f"data: {json.dumps({'log': line.rstrip()})}\n\n"


def _last_words(launch: Launch) -> str:
    return f"the instance ended: {REASON_TEXT[launch.reason]}. {launch.detail}"
