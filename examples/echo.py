"""The smallest chute: what goes in comes out, through the same attested path as a model."""

from typing import Any

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

image = Image(username="demo", name="echo", tag="1.0").from_base("parachutes/python:3.12")

chute = Chute(
    username="demo",
    name="echo",
    image=image,
    tagline="Says it again",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
)


@chute.cord(public_api_path="/echo")
async def echo(self: Any, text: str) -> str:
    return text
