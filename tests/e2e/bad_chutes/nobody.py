"""A chute that no miner of the test's network can serve."""

from typing import Any

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

image = Image(username="moe", name="plain", tag="1").from_base("parachutes/python:3.12")
chute = Chute(
    username="moe", name="nobody", image=image, node_selector=NodeSelector(include=["b200"])
)


@chute.cord(public_api_path="/say")
async def say(self: Any) -> str:
    return "never"
