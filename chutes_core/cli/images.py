"""`chutes images`: what was built."""

from typing import Any

import click

from chutes_core.cli import records


@click.group()
def images() -> None:
    """List, show and delete images."""


def _row(image: dict[str, Any]) -> tuple[Any, ...]:
    owner = (image.get("user") or {}).get("username", "")
    name = f"{owner}/{image['name']}:{image['tag']}"
    return image["image_id"], name, image.get("status", "")


records.add_commands(images, "image", ("IMAGE ID", "NAME", "STATUS"), _row)
