"""Options that several commands share, and how their answers are printed.

Invariant: with --json, stdout holds one JSON document (or, for logs and streams, one a line) and
nothing else; progress goes to stderr. No question is asked that --yes does not answer.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import click

from chutes_core.base.errors import Invalid

LINE_WIDTH = 80
_QUIET = "chutes.quiet"

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def json_option(command: CommandT) -> CommandT:
    """Add what every command has: --json (argument ``as_json``), --quiet and --config-path."""
    for option in (
        click.option(
            "--config-path",
            expose_value=False,
            is_eager=True,
            callback=_use_config,
            help="The configuration file, instead of CHUTES_CONFIG_PATH.",
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_be_quiet,
            help="Print no progress, only the answer and errors.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ):
        command = option(command)
    return command


def yes_option(command: CommandT) -> CommandT:
    """Add --yes."""
    option = click.option("-y", "--yes", is_flag=True, help="Answer every question with yes.")
    return option(command)


def emit(document: Any, *, as_json: bool, text: str) -> None:
    """Print a document as JSON, or its text for people."""
    click.echo(json.dumps(document) if as_json else text)


def note(text: str) -> None:
    """Print progress, to stderr; nothing with --quiet."""
    if not is_quiet():
        click.echo(text, err=True)


def is_quiet() -> bool:
    """Return whether this command was called with --quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().meta.get(_QUIET))


@contextlib.contextmanager
def progress(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal's stderr while something of a known length goes on.

    Yields a function that takes how much more is done.
    """
    hidden = is_quiet() or not sys.stderr.isatty()
    with click.progressbar(length=length, label=label, file=sys.stderr, hidden=hidden) as bar:
        yield bar.update


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


def table(rows: Iterable[Sequence[Any]], headings: Sequence[str], width: int = LINE_WIDTH) -> str:
    """Return rows as aligned columns under their headings; a line that is too long is broken.

    A row wider than ``width`` goes on in the next line, indented, so that an id stays whole and
    can be copied.

    >>> print(table([("a", 1), ("long", 22)], ("NAME", "N")))
    NAME  N
    a     1
    long  22
    """
    cells = [[str(value) for value in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    if sum(widths) + 2 * (len(widths) - 1) > width:
        return "\n".join(_broken(row, width) for row in cells)
    lines = ("  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def _broken(row: Sequence[str], width: int) -> str:
    """Return a row as one line, or as several where it is too long."""
    lines, line = [], ""
    for cell in filter(None, row):
        joined = f"{line}  {cell}" if line else cell
        if line and len(joined) > width:
            lines.append(line)
            joined = f"  {cell}"
        line = joined
    return "\n".join([*lines, line])


def pairs(entries: Iterable[tuple[str, Any]]) -> str:
    """Return named values, one a line, without those that are None."""
    shown = [(name, value) for name, value in entries if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)


def _use_config(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    del context, parameter
    if value is not None:
        os.environ["CHUTES_CONFIG_PATH"] = value


def _be_quiet(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    if value:
        context.find_root().meta[_QUIET] = True
