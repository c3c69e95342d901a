"""A miner asks whether it is reached from outside. Guarded by wire/neuron_http like routes/miner.

Invariant: the answer is about the caller's own address, never one that it names.
"""

from fastapi import APIRouter, Request

from chutes_core.validator.api.routes.miner import Hotkey
from chutes_core.validator.launches.dialback import DialBacks
from chutes_core.wire.control import DialBack, DialBackRequest


def build_router(dial_backs: DialBacks) -> APIRouter:
    """Return the route under /miner."""
    router = APIRouter(prefix="/miner", tags=["miner"])

    @router.post("/reachable")
    async def reachable(request: Request, hotkey: Hotkey, body: DialBackRequest) -> DialBack:
        """Dial the caller's ports and say what came of it."""
        came_from = request.client.host if request.client else ""
        return await dial_backs.dial(hotkey, came_from, body)

    return router
