"""Options that several commands share, and how their answers are printed.

Invariant: with --json, stdout holds one JSON document (or, for logs and streams, one a line) and
nothing else; progress goes to stderr. No question is asked that --yes does not answer.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from chutes_core.base.errors import Invalid

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def json_option(command: CommandT) -> CommandT:
    """Add --json (argument ``as_json``)."""
    option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return option(command)


def yes_option(command: CommandT) -> CommandT:
    """Add --yes."""
    option = click.option("-y", "--yes", is_flag=True, help="Answer every question with yes.")
    return option(command)


def emit(document: Any, *, as_json: bool, text: str) -> None:
    """Print a document as JSON, or its text for people."""
    click.echo(json.dumps(document) if as_json else text)


def note(text: str) -> None:
    """Print progress, to stderr."""
    click.echo(text, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless --yes was given; without a terminal there is nobody to ask.

    Raises:
        Invalid: ``needs_yes``. click.Abort: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Invalid("needs_yes", f"{question} Nobody can answer here.", hint="add --yes")
    click.confirm(question, abort=True, err=True)


def table(rows: Iterable[Sequence[Any]], headings: Sequence[str]) -> str:
    """Return rows as aligned columns under their headings.

    >>> print(table([("a", 1), ("long", 22)], ("NAME", "N")))
    NAME  N
    a     1
    long  22
    """
    cells = [[str(value) for value in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ("  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def pairs(entries: Iterable[tuple[str, Any]]) -> str:
    """Return named values, one a line, without those that are None."""
    shown = [(name, value) for name, value in entries if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)
