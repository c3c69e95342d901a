"""Waiting for a chute to become hot, told line by line: a caller that waits counts as demand.

With ``quick`` the answer is one document of this moment, and the asking counts as demand, too.
"""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from chutes_core.base.errors import Conflict
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.openapi import EVENTS
from chutes_core.validator.api.services import Services
from chutes_core.validator.domain.launches import REASON_TEXT, Launch, LaunchState, Reason

MAX_BODY_BYTES = 1024
MAX_WAIT_S = 1_800
KEEP_ALIVE_POLLS = 20
_ORDER = tuple(LaunchState)


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return /chutes/warmup; included before /chutes/{reference}."""
    router = APIRouter(prefix="/chutes", tags=["chutes"], route_class=bounded_route(MAX_BODY_BYTES))
    user = Annotated[Principal, Depends(guards.user("chutes"))]

    @router.get("/warmup/{reference:path}", response_model=None, responses=EVENTS)
    async def warm_up(
        caller: user, reference: str, *, quick: Annotated[bool, Query()] = False
    ) -> StreamingResponse | dict[str, Any]:
        chute = await run_sync(services.chutes.get, caller.account, reference)
        caller.require("chutes", "invoke", chute.chute_id)
        if not chute.cords:
            raise Conflict(
                "jobs_only",
                f"{chute.name} has no cords that could be called",
                hint=f"run one of its jobs: chutes jobs run {chute.name} JOB",
            )
        if quick:
            services.wake(chute.chute_id)
            return await run_sync(_picture, services, chute.chute_id)
        return StreamingResponse(_follow(services, chute.chute_id), media_type="text/event-stream")

    return router


async def _follow(services: Services, chute_id: str) -> AsyncIterator[str]:
    started_us = services.clock.monotonic_us()
    told = ""
    quiet = 0
    while True:
        services.wake(chute_id)
        status, text = await run_sync(phase_of, services, chute_id)
        waited_us = services.clock.monotonic_us() - started_us
        if status != "hot" and waited_us > MAX_WAIT_S * 1_000_000:
            status, text = "timeout", f"not hot after {MAX_WAIT_S} s"
        event = json.dumps({"status": status, "log": text})
        if event != told:
            told, quiet = event, 0
            yield f"data: {event}\n\n"
        if status in ("hot", "deleted", "timeout"):
            return
        quiet += 1
        if quiet % KEEP_ALIVE_POLLS == 0:
            yield ".\n\n"
        await anyio.sleep(services.poll_s)


def _picture(services: Services, chute_id: str) -> dict[str, Any]:
    """Return the state at this moment, as the public client's dashboard asks for it."""
    status, text = phase_of(services, chute_id)
    launches = services.store.launches.open_of_chute(chute_id)
    return {
        "status": status,
        "log": text,
        "instance_count": len(launches),
        "instances": [
            {
                "instance_id": launch.launch_id,
                "state": launch.state.value,
                "active": launch.state is LaunchState.ACTIVE,
                "gpu_model_name": launch.gpu_class,
                "gpu_count": len(launch.gpu_uuids),
            }
            for launch in launches
        ],
        "bounty": None,
    }


def phase_of(services: Services, chute_id: str) -> tuple[str, str]:
    """Return the state of the current version's launch that is furthest on, with a sentence."""
    chute = services.store.chutes.get(chute_id)
    if chute is None:
        return "deleted", "the chute was deleted"
    if not chute.cords:
        return "jobs_only", "it has no cords; each run of its jobs gets an instance of its own"
    jobs = services.store.jobs.claimed()
    coming = [
        launch
        for launch in services.store.launches.open_of_chute(chute_id)
        if launch.launch_id not in jobs
        and launch.version == chute.version
        and launch.state is not LaunchState.DRAINING
    ]
    if not coming:
        return "cold", _last_end(services.store.launches.last_gone_of(chute_id))
    best = max(coming, key=lambda launch: _ORDER.index(launch.state))
    if best.state is LaunchState.ACTIVE:
        return "hot", "the chute answers"
    return best.state.value, f"an instance on {best.gpu_class} is {best.state.value}"


def _last_end(launch: Launch | None) -> str:
    if launch is None or launch.reason in (Reason.NONE, Reason.SCALED_DOWN, Reason.JOB_ENDED):
        return "waiting for a miner to take it up"
    return f"the last instance ended: {REASON_TEXT[launch.reason]}. {launch.detail}".strip()
