"""A stream of server-sent events: one for each word of a text, at the pace that was asked for.

It needs no model, so that it shows the stream alone: the first event arrives while the last one
is still being waited for, and the same text always gives the same events.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from chutes.chute import Chute, NodeSelector
from chutes.image import Image
from pydantic import BaseModel, Field

image = Image(username="demo", name="stream", tag="1.0").from_base("parachutes/python:3.12")

chute = Chute(
    username="demo",
    name="stream",
    image=image,
    tagline="One event for each word",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
    concurrency=8,
)


class StreamRequest(BaseModel):
    text: str = Field(max_length=20_000)
    delay_ms: int = Field(default=20, ge=0, le=1000)


@chute.cord(
    stream=True,
    public_api_path="/stream",
    minimal_input_schema={"type": "object", "properties": {"text": {"type": "string"}}},
)
async def words(self: Any, request: StreamRequest) -> AsyncGenerator[dict[str, Any] | str, None]:
    parts = request.text.split()
    for index, word in enumerate(parts):
        await asyncio.sleep(request.delay_ms / 1000)
        yield {"index": index, "word": word, "last": index == len(parts) - 1}
    yield "data: [DONE]\n\n"
