"""`chutes warmup`: ask for an instance of a chute, and say what happens until it is hot."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from chutes_core.base.errors import Unavailable
from chutes_core.cli import session
from chutes_core.cli.dashboard import Board
from chutes_core.cli.options import emit, is_quiet, json_option, note
from chutes_core.cli.records import quoted
from chutes_core.cli.status import follow, newest
from chutes_core.sdk.loader import load_chute


@click.command()
@click.argument("chute")
@click.option("--stream-logs/--no-stream-logs", help="Then go on with what its instance prints.")
@click.option("--dashboard/--no-dashboard", help="Draw one screen anew, on a terminal.")
@click.option("--debug/--no-debug", hidden=True, help="For the public command's sake.")
@json_option
def warmup(chute: str, stream_logs: bool, dashboard: bool, debug: bool, as_json: bool) -> None:
    """Ask for an instance of a chute (name, id or MODULE:CHUTE) and wait until it is hot."""
    del debug
    name = name_of(chute)
    last: dict[str, Any] = {}
    with session.calls() as client, _shown(name, dashboard=dashboard) as show:
        for line in client.lines(f"/chutes/warmup/{quoted(name)}", purpose="chutes"):
            if not line.startswith("data:"):
                continue
            last = _event(line.removeprefix("data:").strip())
            show(last)
            if is_hot(last):
                break
    if not is_hot(last):
        raise Unavailable(
            "still_cold",
            "the chute is not hot yet",
            hint=f"try again; `chutes status {name}` says why",
            http_status=200,
        )
    emit(last, as_json=as_json, text=f"{name} is hot")
    if stream_logs:
        with session.management() as client:
            follow(client, newest(client, name), backfill=100, go_on=True, as_json=as_json)


@contextlib.contextmanager
def _shown(name: str, *, dashboard: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what shows a status line: on the dashboard, or as a line of its own."""
    if dashboard and not (sys.stderr.isatty() and not is_quiet()):
        note("no terminal to draw on: lines instead of the dashboard")
    elif dashboard:
        with session.management() as client, Live(console=Console(stderr=True)) as live:
            board = Board(
                name, lambda: client.call("GET", f"/chutes/{quoted(name)}", purpose="chutes")
            )
            yield lambda event: live.update(board.told(event), refresh=True)
        return
    yield lambda event: note(str(event.get("log") or event.get("status") or event))


def name_of(chute: str) -> str:
    """Return the name of the chute that is meant; MODULE:CHUTE of a file here is that chute's."""
    module, colon, variable = chute.partition(":")
    if colon and variable.isidentifier() and "/" not in module:
        return load_chute(chute).name
    return chute


def is_hot(event: dict[str, Any]) -> bool:
    """Return whether a status line says that an instance serves."""
    return event.get("hot") is True or event.get("status") == "hot"


def _event(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except ValueError:
        return {"status": text}
    return event if isinstance(event, dict) else {"status": str(event)}
