"""list, get and delete, which images and chutes share."""

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import click

from chutes_core.cli import session
from chutes_core.cli.options import confirm, emit, json_option, table, yes_option


def add_commands(
    group: click.Group,
    noun: str,
    headings: Sequence[str],
    row: Callable[[dict[str, Any]], Sequence[Any]],
) -> None:
    """Add the three commands for the records at ``/{noun}s/``.

    Args:
        group: what they become commands of.
        noun: ``image`` or ``chute``.
        headings: of the list's columns.
        row: from one item of the list to its cells.
    """
    place = f"/{noun}s/"

    @click.option("--name", default=None, help="Only those whose name contains this.")
    @click.option("--include-public/--no-include-public", help="Other users' public ones, too.")
    @click.option("--page", default=0, show_default=True)
    @click.option("--limit", default=25, show_default=True)
    @json_option
    def list_records(
        name: str | None, include_public: bool, page: int, limit: int, as_json: bool
    ) -> None:
        params: dict[str, str | int | bool] = {"page": page, "limit": limit}
        params |= {"include_public": str(include_public).lower()}
        params |= {"name": name} if name else {}
        with session.management() as client:
            answer = client.call("GET", place, purpose=f"{noun}s", params=params)
        rows = [row(item) for item in answer["items"]]
        emit(answer, as_json=as_json, text=table(rows, headings))

    @click.argument("reference")
    @json_option
    def get_record(reference: str, as_json: bool) -> None:
        with session.management() as client:
            answer = client.call("GET", place + quoted(reference), purpose=f"{noun}s")
        emit(answer, as_json=as_json, text=json.dumps(answer, indent=2))

    @click.argument("reference")
    @yes_option
    @json_option
    def delete_record(reference: str, yes: bool, as_json: bool) -> None:
        confirm(f"Delete {noun} {reference}?", yes=yes)
        with session.management() as client:
            answer = client.call("DELETE", place + quoted(reference), purpose=f"{noun}s")
        emit(answer, as_json=as_json, text=f"deleted {reference}")

    group.command("list", help=f"List your {noun}s.")(list_records)
    group.command("get", help=f"Show one {noun}, by id or name.")(get_record)
    group.command("delete", help=f"Delete one of your {noun}s, by id or name.")(delete_record)


def quoted(reference: str) -> str:
    """Return a record's name for a path; the slash of user/name stays."""
    return quote(reference, safe="/:")
