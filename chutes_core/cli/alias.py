"""`chutes alias`: one name for several chutes, of which the first that can answers."""

from typing import Any

import click

from chutes_core.cli import session
from chutes_core.cli.options import confirm, emit, json_option, table, yes_option
from chutes_core.cli.records import quoted

_PURPOSE = "aliases"


@click.group()
def alias() -> None:
    """Name several chutes at once: the first that can answers a call."""


@alias.command("set")
@click.argument("name")
@click.argument("chute", nargs=-1, required=True)
@json_option
def set_alias(name: str, chute: tuple[str, ...], as_json: bool) -> None:
    """Make the alias NAME, or give it other chutes.

    A call to it goes to the first CHUTE that can answer: to the next one while that is cold, at
    capacity, or fails before the first byte of its answer.
    """
    with session.management() as client:
        made = client.call("PUT", f"/aliases/{quoted(name)}", body={"chutes": list(chute)})
    emit(made, as_json=as_json, text=f"{made['model']} asks {_names(made)}")


@alias.command("list")
@click.option("--page", default=0, show_default=True)
@click.option("--limit", default=25, show_default=True)
@json_option
def list_aliases(page: int, limit: int, as_json: bool) -> None:
    """List your aliases and their chutes."""
    params: dict[str, str | int | bool] = {"page": page, "limit": limit}
    with session.management() as client:
        answer = client.call("GET", "/aliases/", purpose=_PURPOSE, params=params)
    rows = [(one["name"], one["model"], one["slug"], _names(one)) for one in answer["items"]]
    emit(answer, as_json=as_json, text=table(rows, ("ALIAS", "MODEL", "SLUG", "CHUTES")))


@alias.command("get")
@click.argument("name")
@json_option
def get_alias(name: str, as_json: bool) -> None:
    """Show one alias and its chutes."""
    with session.management() as client:
        found = client.call("GET", f"/aliases/{quoted(name)}", purpose=_PURPOSE)
    emit(found, as_json=as_json, text=f"{found['model']} asks {_names(found)}")


@alias.command("delete")
@click.argument("name")
@yes_option
@json_option
def delete_alias(name: str, yes: bool, as_json: bool) -> None:
    """Delete one of your aliases; its chutes stay."""
    confirm(f"Delete alias {name}?", yes=yes)
    with session.management() as client:
        answer = client.call("DELETE", f"/aliases/{quoted(name)}", purpose=_PURPOSE)
    emit(answer, as_json=as_json, text=f"deleted {name}")


def _names(shown: dict[str, Any]) -> str:
    """Return an alias' chutes in their order; one that is gone by its id."""
    return ", ".join(one["name"] or f"{one['chute_id']} (gone)" for one in shown["chutes"])
