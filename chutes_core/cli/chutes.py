"""`chutes chutes`: what is deployed."""

from typing import Any

import click

from chutes_core.cli import records


@click.group()
def chutes() -> None:
    """List, show and delete deployed chutes."""


def _row(chute: dict[str, Any]) -> tuple[Any, ...]:
    owner = (chute.get("user") or {}).get("username", "")
    state = "hot" if chute.get("hot") else "cold"
    return chute["chute_id"], f"{owner}/{chute['name']}", chute.get("slug", ""), state


records.add_commands(chutes, "chute", ("CHUTE ID", "NAME", "SLUG", "STATE"), _row)
