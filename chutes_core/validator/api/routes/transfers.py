"""Archives of images for miners: a plain stream with ranges, opened by the launch's own token.

Outside of /miner, whose answers are signed and therefore held in memory whole. Invariant: memory
stays flat whatever the size; a transfer that was cut goes on with Range where it ended.
"""

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Security
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from chutes_core.base.errors import Unauthenticated
from chutes_core.validator.api.openapi import LAUNCH, PART
from chutes_core.validator.launches.transfers import Archive, Transfers

SCHEME = "launch"
MAX_TOKEN = 200
_ARCHIVE: dict[int | str, dict[str, Any]] = PART | {
    200: {"description": "the archive", "content": {"application/x-tar": {}}}
}


class _Counted(FileResponse):
    """A file whose sending counts as one of its launch's transfers."""

    def __init__(self, archive: Archive, transfers: Transfers, launch_id: str) -> None:
        # The name of the file is its hash: a range of it can never come from another content.
        headers = {"ETag": f'"{archive.sha256}"', "Cache-Control": "no-store"}
        super().__init__(archive.path, media_type="application/x-tar", headers=headers)
        self._transfers = transfers
        self._launch_id = launch_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the ranges that were asked for."""
        with self._transfers.counted(self._launch_id):
            await super().__call__(scope, receive, send)


def build_router(transfers: Transfers) -> APIRouter:
    """Return the route under /launches."""
    router = APIRouter(tags=["miner"])

    @router.get("/launches/{launch_id}/image", response_class=FileResponse, responses=_ARCHIVE)
    async def image_archive(
        request: Request, launch_id: str, _token: Annotated[object, Security(LAUNCH)] = None
    ) -> FileResponse:
        token = _token_of(request.headers.get("authorization", ""))
        archive = await run_sync(transfers.open, launch_id, token)
        return _Counted(archive, transfers, launch_id)

    return router


def _token_of(header: str) -> str:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != SCHEME or not token or len(token) > MAX_TOKEN or not token.isascii():
        raise Unauthenticated(
            "no_launch_token",
            "the request carries no launch token",
            hint="Authorization: Launch <token of the grant's image>",
        )
    return token
