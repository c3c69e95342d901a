"""`chutes images`: what was built."""

from typing import Any

import click

from chutes_core.cli import records, session
from chutes_core.cli.options import json_option
from chutes_core.cli.status import build_log


@click.group()
def images() -> None:
    """List, show and delete images, and read their build logs."""


def _row(image: dict[str, Any]) -> tuple[Any, ...]:
    owner = (image.get("user") or {}).get("username", "")
    name = f"{owner}/{image['name']}:{image['tag']}"
    return image["image_id"], name, image.get("status", "")


records.add_commands(images, "image", ("IMAGE ID", "NAME", "STATUS"), _row)


@images.command("logs")
@click.argument("reference")
@click.option("--follow/--no-follow", "go_on", default=True, help="Go on to the build's end.")
@json_option
def build_logs(reference: str, go_on: bool, as_json: bool) -> None:
    """Print the build log of an image, by id or user/name:tag."""
    with session.management() as client:
        build_log(client, reference, go_on=go_on, as_json=as_json)
