"""`chutes keys`: API keys and their scopes."""

import json
import os
from dataclasses import replace
from datetime import datetime
from typing import Any

import click

from chutes_core.base.errors import Invalid
from chutes_core.base.units import parse_tao
from chutes_core.cli import session
from chutes_core.cli.options import confirm, emit, json_option, pairs, table, yes_option
from chutes_core.sdk.config import config_path, load_config, save_config

ACTIONS = ("read", "write", "delete", "invoke")
PURPOSE = "api_keys"
_SCOPES = 'e.g. [{"object_type": "chutes", "object_id": null, "action": "invoke"}]'


@click.group()
def keys() -> None:
    """Create, list and delete API keys."""


@keys.command()
@click.option("--name", required=True, help="What you call the key.")
@click.option("--admin/--no-admin", help="May do everything you may.")
@click.option("--images/--no-images", help="All your images.")
@click.option("--chutes/--no-chutes", help="All your chutes.")
@click.option("--image-ids", multiple=True, help="One image; may be repeated.")
@click.option("--chute-ids", multiple=True, help="One chute; may be repeated.")
@click.option("--action", type=click.Choice(ACTIONS), help="Only this action, instead of all.")
@click.option("--json-input", help="The scopes as a JSON list.")
@click.option(
    "--expires",
    type=click.DateTime(),
    metavar="DATE",
    help="When it ends, UTC: 2030-01-31 or with a time.",
)
@click.option("--budget", metavar="TAO", help="What calls and fees with it may cost in all.")
@click.option("--calls-per-minute", type=click.IntRange(min=1), help="Calls it may make a minute.")
@click.option("--save", is_flag=True, help="Keep it in the configuration, for `chutes invoke`.")
@json_option
def create(
    name: str,
    admin: bool,
    images: bool,
    chutes: bool,
    image_ids: tuple[str, ...],
    chute_ids: tuple[str, ...],
    action: str | None,
    json_input: str | None,
    expires: datetime | None,
    budget: str | None,
    calls_per_minute: int | None,
    save: bool,
    as_json: bool,
) -> None:
    """Create a key; its secret is shown this once."""
    bounds = _bounds(expires, budget, calls_per_minute)
    kinds = [kind for kind, given in (("images", images), ("chutes", chutes)) if given]
    wanted: list[tuple[str, str | None]] = [(kind, None) for kind in kinds]
    wanted += [("images", one) for one in image_ids]
    wanted += [("chutes", one) for one in chute_ids]
    scopes: list[Any] = [
        {"object_type": kind, "object_id": one, "action": action} for kind, one in wanted
    ]
    scopes += _parsed(json_input)
    if not admin and not scopes:
        raise Invalid(
            "key_without_scope",
            "a key without scopes can do nothing",
            hint="add --admin, or for example --chutes --action invoke",
        )
    with session.management() as client:
        body = {"name": name, "admin": admin, "scopes": scopes, **bounds}
        key = client.call("POST", "/api_keys/", body=body)
    if save:
        config = replace(load_config(), api_key=key["secret_key"])
        save_config(config, config_path(os.environ))
    text = pairs(
        (
            ("key id", key["api_key_id"]),
            ("name", key["name"]),
            ("secret", f"{key['secret_key']}  (shown once)"),
        )
    )
    emit(key, as_json=as_json, text=text)


@keys.command("list")
@click.option("--name", default=None, help="Only those whose name contains this.")
@click.option("--page", default=0, show_default=True)
@click.option("--limit", default=25, show_default=True)
@json_option
def list_keys(name: str | None, page: int, limit: int, as_json: bool) -> None:
    """List your keys, without their secrets."""
    params: dict[str, str | int | bool] = {"page": page, "limit": limit}
    params |= {"name": name} if name else {}
    with session.management() as client:
        answer = client.call("GET", "/api_keys/", purpose=PURPOSE, params=params)
    rows = [
        (key["api_key_id"], key["name"], "admin" if key["admin"] else len(key.get("scopes") or ()))
        for key in answer["items"]
    ]
    emit(answer, as_json=as_json, text=table(rows, ("KEY ID", "NAME", "SCOPES")))


@keys.command()
@click.argument("key_id")
@json_option
def get(key_id: str, as_json: bool) -> None:
    """Show one key, without its secret."""
    with session.management() as client:
        answer = client.call("GET", f"/api_keys/{key_id}", purpose=PURPOSE)
    emit(answer, as_json=as_json, text=json.dumps(answer, indent=2))


@keys.command()
@click.argument("key_id")
@yes_option
@json_option
def delete(key_id: str, yes: bool, as_json: bool) -> None:
    """Delete a key; callers that use it are refused from then on."""
    confirm(f"Delete key {key_id}?", yes=yes)
    with session.management() as client:
        answer = client.call("DELETE", f"/api_keys/{key_id}", purpose=PURPOSE)
    emit(answer, as_json=as_json, text=f"deleted {key_id}")


def _bounds(
    expires: datetime | None, budget: str | None, calls_per_minute: int | None
) -> dict[str, Any]:
    """Return the fields of what was asked for."""
    fields = {
        "expires_at": None if expires is None else f"{expires.isoformat()}Z",
        "budget_rao": None if budget is None else parse_tao(budget),
        "calls_per_minute": calls_per_minute,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _parsed(json_input: str | None) -> list[Any]:
    if json_input is None:
        return []
    try:
        scopes = json.loads(json_input)
    except ValueError as error:
        raise Invalid(
            "bad_json_input", f"--json-input is no JSON: {error}", hint=_SCOPES
        ) from error
    if not isinstance(scopes, list):
        raise Invalid("bad_json_input", "--json-input must be a JSON list of scopes", hint=_SCOPES)
    return scopes
