"""Logos: small pictures beside images and chutes.

Invariant: what is served has one of four picture types, told by its first bytes and never by what
the uploader says; no SVG, which can hold scripts.
"""

from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse
from starlette.datastructures import UploadFile

from chutes_core.base import ids
from chutes_core.base.errors import Exhausted, Invalid, NotFound
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.openapi import PART, multipart
from chutes_core.validator.api.services import Services
from chutes_core.validator.domain.extras import Logo

MAX_LOGO_BYTES = 1024 * 1024
MAX_BODY_BYTES = MAX_LOGO_BYTES + 16 * 1024
MAX_LOGOS = 200
_SAFE = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"}

_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the picture",
        "content": {f"image/{kind}": {} for kind in ("png", "jpeg", "gif", "webp")},
    }
}


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /logos."""
    router = APIRouter(prefix="/logos", tags=["logos"], route_class=bounded_route(MAX_BODY_BYTES))
    user = Annotated[Principal, Depends(guards.user("logos"))]

    @router.post("/", openapi_extra=multipart({"logo": "file"}, required=("logo",)))
    async def upload_logo(caller: user, request: Request) -> dict[str, Any]:
        caller.require("chutes", "write")
        async with request.form(max_files=1, max_fields=4, max_part_size=MAX_BODY_BYTES) as form:
            part = form.get("logo")
            data = await part.read() if isinstance(part, UploadFile) else b""
        logo = await run_sync(partial(_keep, services, caller, data))
        return {"logo_id": logo.logo_id, "content_type": logo.content_type}

    @router.get("/{logo_id}", response_class=FileResponse, responses=_PICTURE | PART)
    def read_logo(logo_id: str) -> FileResponse:
        logo = services.store.logos.get(logo_id)
        if logo is None:
            raise NotFound("no_such_logo", "there is no such logo")
        path = services.store.blobs.path(logo.sha256)
        return FileResponse(path, media_type=logo.content_type, headers=_SAFE)

    return router


def content_type_of(data: bytes) -> str:
    """Return the picture type that the first bytes show.

    Raises:
        Invalid: ``bad_logo``.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise Invalid(
        "bad_logo",
        "the form's field `logo` holds no picture",
        hint=f"PNG, JPEG, GIF or WebP of at most {MAX_LOGO_BYTES} bytes",
    )


def check_logo(services: Services, caller: Principal, logo_id: str | None) -> None:
    """Check that a logo is the caller's own.

    Raises:
        NotFound: ``no_such_logo``.
    """
    if logo_id is None:
        return
    logo = services.store.logos.get(logo_id)
    if logo is None or logo.user_id != caller.account.user_id:
        raise NotFound("no_such_logo", "you have no such logo", hint="upload it: POST /logos/")


def _keep(services: Services, caller: Principal, data: bytes) -> Logo:
    kind = content_type_of(data)
    owner = caller.account.user_id
    if services.store.logos.count_of(owner) >= MAX_LOGOS:
        raise Exhausted("too_many_logos", f"an account has at most {MAX_LOGOS} logos")
    blob = services.store.blobs.put([data], limit_bytes=MAX_LOGO_BYTES)
    logo = Logo(ids.new_id(), owner, blob.sha256, kind, services.clock.now_s())
    services.store.logos.insert(logo)
    return logo
