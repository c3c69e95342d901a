"""A chute whose start-up fails: for the tests of bad input."""

from typing import Any

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

image = Image(username="moe", name="plain", tag="1").from_base("parachutes/python:3.12")
chute = Chute(
    username="moe",
    name="broken",
    image=image,
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
)


@chute.on_startup()
async def load(self: Any) -> None:
    raise FileNotFoundError("the weights are not there")


@chute.cord(public_api_path="/say")
async def say(self: Any) -> str:
    return "never"
