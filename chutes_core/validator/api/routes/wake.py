"""A miner waits for more to be wanted. Guarded by wire/neuron_http like routes/miner.

Invariant: the answer comes within the bound of `launches.bell`, whatever the caller asks for.
"""

from typing import Annotated

from fastapi import APIRouter, Query

from chutes_core.validator.api.routes.miner import Hotkey
from chutes_core.validator.launches.bell import MAX_WAIT_S, Bell
from chutes_core.wire.control import Wake

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S)]


def build_router(bell: Bell) -> APIRouter:
    """Return the route under /miner."""
    router = APIRouter(prefix="/miner", tags=["miner"])

    @router.get("/wake")
    async def wake(hotkey: Hotkey, after: int = 0, wait_s: Wait = 0) -> Wake:
        """Answer once more is wanted than when the number was `after`, or when the time is over."""
        return Wake(number=await bell.listen(hotkey, after, wait_s))

    return router
