"""`chutes init`: a chute that works, to begin with."""

from pathlib import Path

import click

from chutes_core.base.errors import Conflict
from chutes_core.cli.options import emit, json_option
from chutes_core.sdk.config import load_config
from chutes_core.sdk.loader import load_code

_CODE = '''"""{name}: what it does, in one line."""

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

image = Image(username="{username}", name="{name}", tag="1.0").from_base("parachutes/python:3.12")

chute = Chute(
    username="{username}",
    name="{name}",
    image=image,
    tagline="Greets",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
)


@chute.on_startup()
async def prepare(self):
    """Runs once, before the first call: load models here."""
    self.greeting = "Hello"


@chute.cord(public_api_path="/hello")
async def hello(self, name: str) -> dict:
    """Runs for each call."""
    return {{"text": f"{{self.greeting}}, {{name}}!"}}
'''


@click.command()
@click.argument("name", default="hello")
@click.option("--username", help="Whose chute it is; default: who is registered here.")
@json_option
def init(name: str, username: str | None, as_json: bool) -> None:
    """Write a working chute into NAME.py of this folder."""
    owner = username or load_config().username or "me"
    file = Path(f"{name}.py")
    code = _CODE.format(name=name, username=owner)
    chute = load_code(code, file.name, f"{name}:chute")  # a bad name is told before it is written
    try:
        with file.open("x") as stream:
            stream.write(code)
    except FileExistsError as error:
        raise Conflict("file_exists", f"{file} is there already", hint="choose a name") from error
    document = {"file": str(file), "ref": f"{name}:chute", "chute_id": chute.chute_id}
    steps = "\n".join(
        (
            f"{file} is written; next:",
            f"  chutes run {name}:chute --dev",
            f"  chutes build {name}:chute --wait",
            f"  chutes deploy {name}:chute --accept-fee",
        )
    )
    emit(document, as_json=as_json, text=steps)
