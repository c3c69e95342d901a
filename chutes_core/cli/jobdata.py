"""A job's arguments as the command line gives them. Invariant: a JSON object, or a typed error."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chutes_core.base.errors import Invalid


def arguments_of(pieces: Sequence[str], data: str | None) -> dict[str, Any]:
    """Return the arguments: the JSON object of ``data`` with each NAME=VALUE over it.

    A value that is no JSON is a text.

    >>> arguments_of(["steps=3", "name=Ada"], '{"steps": 1, "rate": 0.5}')
    {'steps': 3, 'rate': 0.5, 'name': 'Ada'}

    Raises:
        Invalid: ``bad_job_data``.
    """
    given = {} if data is None else _document(data)
    for piece in pieces:
        name, equals, text = piece.partition("=")
        if not equals or not name.isidentifier():
            raise Invalid("bad_job_data", f"{piece!r} is no NAME=VALUE", hint="e.g. --arg steps=3")
        given[name] = _value(text)
    return given


def _document(data: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if data == "-" else data
        if data.startswith("@"):
            text = Path(data[1:]).read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, ValueError) as error:
        raise Invalid(
            "bad_job_data", f"--data is no JSON: {error}", hint="JSON, @FILE, or - for stdin"
        ) from error
    if not isinstance(document, dict):
        raise Invalid(
            "bad_job_data", "--data is no JSON object", hint="e.g. --data '{\"steps\": 3}'"
        )
    return document


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
