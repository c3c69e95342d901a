"""`chutes rollback`: deploy an earlier version of a chute again, from the code that the API kept.

The code runs here as it did when it was deployed, to learn its cords. Invariant: the same image
and code give the same version, so a rollback is a deployment like any other.
"""

from typing import Any

import click

from chutes_core.base.errors import Invalid, NotFound
from chutes_core.cli import session
from chutes_core.cli.options import confirm, emit, json_option, table, yes_option
from chutes_core.cli.records import quoted
from chutes_core.sdk.loader import ChuteSource, load_code
from chutes_core.sdk.manifest import deploy_body


@click.command()
@click.argument("chute")
@click.option("--version", help="Which one; default: the one before the current.")
@click.option("--list", "only_list", is_flag=True, help="Show the versions and do nothing.")
@yes_option
@json_option
def rollback(chute: str, version: str | None, only_list: bool, yes: bool, as_json: bool) -> None:
    """Deploy an earlier version of a chute again."""
    with session.management() as client:
        answer = client.call("GET", f"/chutes/versions/{quoted(chute)}", purpose="chutes")
        items = answer["items"]
        if only_list:
            emit(answer, as_json=as_json, text=_text(items))
            return
        wanted = choose(items, version)
        confirm(f"Deploy {chute} as of {wanted['created_at']} again?", yes=yes)
        source = ChuteSource(wanted["code"], wanted["filename"], wanted["ref_str"])
        loaded = load_code(source.code, source.filename, source.ref_str)
        body = deploy_body(loaded, source, public=bool(answer["public"]))
        done = client.call("POST", "/chutes/", body={**body, "image": wanted["image_id"]})
    emit(done, as_json=as_json, text=f"{chute} is at version {done['version']} again")


def choose(items: list[dict[str, Any]], version: str | None) -> dict[str, Any]:
    """Return the version that is meant (a beginning of its id is enough).

    Raises:
        NotFound: ``no_such_version``. Invalid: ``which_version`` or ``version_is_current``.
    """
    if version is None:
        at = next(index for index, item in enumerate(items) if item["current"])
        found = items[max(at - 1, 0) : at]
    else:
        found = [item for item in items if item["version"].startswith(version)]
    if not found:
        raise NotFound("no_such_version", "there is no such version", hint="add --list")
    if len(found) > 1:
        raise Invalid("which_version", "several versions begin like this", hint="add --list")
    if found[0]["current"]:
        raise Invalid("version_is_current", "this version is deployed already", hint="add --list")
    return found[0]


def _text(items: list[dict[str, Any]]) -> str:
    rows = [
        (one["version"], one["created_at"], "current" if one["current"] else "") for one in items
    ]
    return table(rows, ("VERSION", "DEPLOYED", ""))
