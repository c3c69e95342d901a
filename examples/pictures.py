"""A picture in, a picture out: turned, mirrored, grey, smaller, by Pillow.

The picture comes as base64 in the JSON body and goes back as the bytes of a PNG, with its own
content type. What is no picture, or too large a one, is refused with 422 before Pillow unpacks it.
"""

import asyncio
import base64
import binascii
import io
from typing import Any, Literal

from chutes.chute import Chute, NodeSelector
from chutes.image import Image
from fastapi import HTTPException
from pydantic import BaseModel, Field

MAX_PIXELS = 16_000_000

image = (
    Image(username="demo", name="pictures", tag="1.0", readme="Pillow")
    .from_base("parachutes/python:3.12")
    .run_command("pip install pillow~=12.0")
)

chute = Chute(
    username="demo",
    name="pictures",
    image=image,
    tagline="Turns pictures",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
    concurrency=4,
)


class Wanted(BaseModel):
    image_b64: str = Field(max_length=20_000_000)
    change: Literal["turn", "mirror", "grey"] = "turn"
    max_side: int = Field(default=1024, ge=1, le=4096)


@chute.cord(public_api_path="/change", output_content_type="image/png")
async def change(self: Any, wanted: Wanted) -> bytes:
    try:
        raw = base64.b64decode(wanted.image_b64, validate=True)
    except binascii.Error as error:
        raise HTTPException(422, "image_b64 is no base64") from error
    return await asyncio.to_thread(changed, raw, wanted)


def changed(raw: bytes, wanted: Wanted) -> bytes:
    """Return the changed picture as PNG."""
    from PIL import Image as Pictures
    from PIL import ImageOps, UnidentifiedImageError

    try:
        picture = Pictures.open(io.BytesIO(raw), formats=("PNG", "JPEG", "WEBP", "GIF"))
        if picture.width * picture.height > MAX_PIXELS:
            raise HTTPException(422, f"the picture has more than {MAX_PIXELS} pixels")
        picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise HTTPException(422, "this is no picture that can be read") from error
    picture.thumbnail((wanted.max_side, wanted.max_side))
    if wanted.change == "turn":
        picture = picture.transpose(Pictures.Transpose.ROTATE_90)
    elif wanted.change == "mirror":
        picture = ImageOps.mirror(picture)
    else:
        picture = picture.convert("L")
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
