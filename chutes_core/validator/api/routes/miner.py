"""What miners call: wanted list, launches, events, image bundles. Guarded by wire/neuron_http.

Invariant: every handler acts for the hotkey that signed the request, and for no other.
"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.responses import FileResponse

from chutes_core.base.errors import Forbidden, NotFound
from chutes_core.validator.api.openapi import NEURON, PART
from chutes_core.validator.billing.receipts import Receipts
from chutes_core.validator.launches.service import Launches
from chutes_core.validator.store.database import Store
from chutes_core.wire.control import (
    LaunchEvent,
    LaunchGrant,
    LaunchList,
    LaunchRequest,
    LaunchStatus,
    WantedList,
)
from chutes_core.wire.neuron_http import CALLER
from chutes_core.wire.receipt import ReceiptList

Signature = Annotated[object, Security(NEURON)]  # for the document; wire/neuron_http reads it


class ZipResponse(FileResponse):
    """A zip file."""

    media_type = "application/zip"


def caller_hotkey(request: Request, _signature: Signature = None) -> str:
    """Return the hotkey that the middleware authenticated.

    Raises:
        Forbidden: the application is served without its middleware.
    """
    caller = request.scope.get(CALLER)
    if caller is None:
        raise Forbidden("unsigned", "this endpoint takes signed requests of neurons only")
    return str(caller.hotkey_ss58)


Hotkey = Annotated[str, Depends(caller_hotkey)]


def build_router(launches: Launches, store: Store) -> APIRouter:
    """Return the routes under /miner."""
    router = APIRouter(prefix="/miner", tags=["miner"])

    @router.get("/wanted")
    async def wanted(hotkey: Hotkey) -> WantedList:
        return await launches.wanted(hotkey)

    @router.post("/launches", status_code=201)
    async def request_launch(hotkey: Hotkey, body: LaunchRequest) -> LaunchGrant:
        return await launches.request(hotkey, body)

    @router.get("/launches")
    async def list_launches(hotkey: Hotkey) -> LaunchList:
        return await launches.listed(hotkey)

    @router.post("/launches/{launch_id}/events")
    async def report_event(hotkey: Hotkey, launch_id: str, body: LaunchEvent) -> LaunchStatus:
        return await launches.event(hotkey, launch_id, body)

    @router.get("/launches/{launch_id}/receipts")
    async def list_receipts(
        hotkey: Hotkey, launch_id: str, after_us: Annotated[int, Query(ge=0)] = 0
    ) -> ReceiptList:
        return await asyncio.to_thread(_receipts, store, hotkey, launch_id, after_us)

    @router.get("/images/{image_id}/bundle", response_class=ZipResponse, responses=PART)
    async def image_bundle(hotkey: Hotkey, image_id: str) -> FileResponse:
        path, sha256 = await asyncio.to_thread(_bundle, store, hotkey, image_id)
        headers = {"ETag": f'"{sha256}"'}
        return ZipResponse(path, media_type=ZipResponse.media_type, headers=headers)

    return router


def _receipts(store: Store, hotkey: str, launch_id: str, after_us: int) -> ReceiptList:
    """Return what the validator signed of the calls that an instance of this miner answered."""
    launch = store.launches.get(launch_id)
    if launch is None or launch.miner_hotkey != hotkey:
        raise NotFound("no_such_launch", "you have no launch of this id")
    return ReceiptList(receipts=tuple(Receipts(store).of_launch(launch_id, after_us)))


def _bundle(store: Store, hotkey: str, image_id: str) -> tuple[str, str]:
    """Find the bundle of an image for which this miner holds an open launch."""
    needed = {launch.image_id for launch in store.launches.open() if launch.miner_hotkey == hotkey}
    image = store.images.get(image_id)
    if image is None or image_id not in needed:
        raise NotFound(
            "no_such_image", "you have no open launch of this image", hint="request a launch first"
        )
    return str(store.blobs.path(image.bundle_sha256)), image.bundle_sha256
