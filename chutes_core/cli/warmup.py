"""`chutes warmup`: ask for an instance of a chute, and say what happens until it is hot."""

import json
from typing import Any

import click

from chutes_core.base.errors import Unavailable
from chutes_core.cli import session
from chutes_core.cli.options import emit, json_option, note
from chutes_core.cli.records import quoted


@click.command()
@click.argument("chute")
@json_option
def warmup(chute: str, as_json: bool) -> None:
    """Ask for an instance of a chute (name or id) and wait until it is hot."""
    last: dict[str, Any] = {}
    with session.calls() as client:
        for line in client.lines(f"/chutes/warmup/{quoted(chute)}", purpose="chutes"):
            if not line.startswith("data:"):
                continue
            last = _event(line.removeprefix("data:").strip())
            note(str(last.get("log") or last.get("status") or last))
            if is_hot(last):
                break
    if not is_hot(last):
        raise Unavailable(
            "still_cold",
            "the chute is not hot yet",
            hint="try again; `chutes chutes get` shows its instances",
            http_status=200,
        )
    emit(last, as_json=as_json, text=f"{chute} is hot")


def is_hot(event: dict[str, Any]) -> bool:
    """Return whether a status line says that an instance serves."""
    return event.get("hot") is True or event.get("status") == "hot"


def _event(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except ValueError:
        return {"status": text}
    return event if isinstance(event, dict) else {"status": str(event)}
