"""A chute that can answer, fail, and take long: for the tests of bad input."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

image = Image(username="moe", name="plain", tag="1").from_base("parachutes/python:3.12")
chute = Chute(
    username="moe",
    name="moody",
    image=image,
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
    concurrency=1,
)


@chute.cord(public_api_path="/say")
async def say(self: Any, text: str) -> str:
    return text


@chute.cord(public_api_path="/fail")
async def fail(self: Any) -> str:
    raise RuntimeError("out of luck")


@chute.cord(public_api_path="/long", stream=True)
async def long(self: Any) -> AsyncGenerator[str, None]:
    yield "begun"
    await asyncio.sleep(60)
