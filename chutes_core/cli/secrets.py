"""`chutes secrets`: variables of a chute that its code does not hold."""

import sys
from typing import Any

import click

from chutes_core.cli import records, session
from chutes_core.cli.options import emit, json_option, note


@click.group()
def secrets() -> None:
    """Create, list and delete secrets of chutes; a value is never shown again."""


@secrets.command()
@click.option("--purpose", required=True, help="The chute (name or id) that gets it.")
@click.option("--key", required=True, help="Name of the variable.")
@click.option("--value", help="What it holds; `-` or nothing: read from standard input.")
@json_option
def create(purpose: str, key: str, value: str | None, as_json: bool) -> None:
    """Keep a variable for a chute; instances get it after their proof."""
    if value in (None, "-"):
        value = sys.stdin.read().rstrip("\n")
    with session.management() as client:
        body = {"purpose": purpose, "key": key, "value": value}
        made = client.call("POST", "/secrets/", body=body)
    note(str(made.get("note", "")))
    text = f"secret {made['secret_id']} is kept for {purpose} ({key})"
    emit(made, as_json=as_json, text=f"{text}\nrunning instances get it when they start anew")


def _row(secret: dict[str, Any]) -> tuple[Any, ...]:
    return secret["secret_id"], secret["purpose"], secret["key"]


records.add_commands(secrets, "secret", ("SECRET ID", "CHUTE", "KEY"), _row)
