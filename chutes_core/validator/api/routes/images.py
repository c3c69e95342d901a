"""Images: upload, list, read, delete, and the log of a build as it grows."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.datastructures import FormData, UploadFile

from chutes_core.base import ids
from chutes_core.base.errors import Invalid
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import Slots, bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.openapi import EVENTS, multipart
from chutes_core.validator.api.pages import AskedPage
from chutes_core.validator.api.services import Services
from chutes_core.validator.api.views import image_view
from chutes_core.validator.catalog.image_rules import ImageDraft
from chutes_core.validator.domain.images import Image

MAX_BODY_BYTES = 72 * 1024 * 1024  # the context's limit, and room for the form around it
UPLOAD_TIMEOUT_S = 600.0
MAX_UPLOADS = 6
MAX_UPLOADS_OF_ONE = 2
MAX_FIELD_BYTES = 4 * 1024 * 1024
KEEP_ALIVE_POLLS = 20
_ENDED = ("built", "error")
_TEXTS = ("username", "name", "tag", "readme", "dockerfile", "public", "logo_id", "wait", "image")
_FORM = multipart(
    {**dict.fromkeys(_TEXTS, "text"), "build_context": "file"},
    required=("username", "name", "tag", "dockerfile"),
)


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /images."""
    slots = Slots(MAX_UPLOADS, each=MAX_UPLOADS_OF_ONE, holder=guards.holder)
    bounded = bounded_route(MAX_BODY_BYTES, timeout_s=UPLOAD_TIMEOUT_S, slots=slots)
    router = APIRouter(prefix="/images", tags=["images"], route_class=bounded)
    user = Annotated[Principal, Depends(guards.user("images"))]
    images = services.images

    @router.post("/", status_code=202, openapi_extra=_FORM)
    async def create_image(
        caller: user, request: Request, tasks: BackgroundTasks
    ) -> dict[str, Any]:
        async with request.form(max_files=4, max_fields=32, max_part_size=MAX_FIELD_BYTES) as form:
            draft = await _draft(form)
        image_id = ids.image_id(draft.username, draft.name, draft.tag)
        caller.require("images", "write", image_id)
        image = await run_sync(images.create, caller.account, draft)
        tasks.add_task(images.build, image.image_id)
        return {"image_id": image.image_id, "status": image.status}

    @router.get("/")
    def list_images(
        caller: user,
        asked: AskedPage,
        name: str | None = None,
        tag: str | None = None,
        *,
        include_public: Annotated[bool, Query()] = False,
    ) -> dict[str, Any]:
        found = [
            image
            for image in images.list(caller.account, include_public=include_public)
            if (name is None or name in image.name)
            and (tag is None or tag in image.tag)
            and caller.may("images", "read", image.image_id)
        ]
        return asked.of(found, image_view)

    @router.get("/{reference:path}/logs", response_class=PlainTextResponse, responses=EVENTS)
    async def read_log(
        caller: user, reference: str, offset: Annotated[str, Query(max_length=20)] = ""
    ) -> Response:
        image = await run_sync(images.get, caller.account, reference)
        caller.require("images", "read", image.image_id)
        if image.state in _ENDED:
            return PlainTextResponse(await run_sync(_whole_log, services, image))
        after = int(offset) if offset.isascii() and offset.isdigit() else 0
        return StreamingResponse(
            _follow(services, image.image_id, after), media_type="text/event-stream"
        )

    @router.get("/{reference:path}")
    def read_image(caller: user, reference: str) -> dict[str, Any]:
        image = images.get(caller.account, reference)
        caller.require("images", "read", image.image_id)
        return image_view(image)

    @router.delete("/{reference:path}")
    def delete_image(caller: user, reference: str) -> dict[str, Any]:
        image = images.get(caller.account, reference)
        caller.require("images", "delete", image.image_id)
        images.delete(caller.account, image.image_id)
        return {"image_id": image.image_id, "deleted": True}

    return router


async def _draft(form: FormData) -> ImageDraft:
    """Read the form; its `image` field is a pickle of the public client and stays unread."""
    return ImageDraft(
        username=await _text(form, "username"),
        name=await _text(form, "name"),
        tag=await _text(form, "tag"),
        readme=await _text(form, "readme", ""),
        public=(await _text(form, "public", "false")).strip().lower() == "true",
        dockerfile=await _text(form, "dockerfile"),
        context=await _bytes(form, "build_context"),
    )


async def _text(form: FormData, name: str, default: str | None = None) -> str:
    if name not in form:
        if default is None:
            raise Invalid("missing_field", f"the form lacks {name}")
        return default
    try:
        return (await _bytes(form, name)).decode()
    except UnicodeDecodeError as error:
        raise Invalid("bad_field", f"{name} is no UTF-8 text") from error


async def _bytes(form: FormData, name: str) -> bytes:
    value = form.get(name)
    if isinstance(value, UploadFile):
        return await value.read()
    return b"" if value is None else value.encode()


def _whole_log(services: Services, image: Image) -> str:
    lines = services.images.log(image.image_id, after=0)
    return "".join(f"{line.text}\n" for line in lines)


async def _follow(services: Services, image_id: str, after: int) -> AsyncIterator[str]:
    """Yield log lines as they come until the build has ended."""
    images = services.images
    quiet = 0
    while True:
        image = await run_sync(images.state_of, image_id)
        for line in await run_sync(partial(images.log, image_id, after=after)):
            after, quiet = line.line, 0
            event = {"log": {"log_type": line.log_type, "log": line.text}, "offset": str(after)}
            yield f"data: {json.dumps(event)}\n\n"
        if image is None or image.state in _ENDED:
            yield "DONE\n\n"
            return
        quiet += 1
        if quiet % KEEP_ALIVE_POLLS == 0:
            yield ".\n\n"
        await anyio.sleep(services.poll_s)
