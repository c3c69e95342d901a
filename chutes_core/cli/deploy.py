"""`chutes deploy module:chute`: send a chute file to the validator."""

from typing import Any

import click

from chutes_core.cli import logos, session
from chutes_core.cli.options import emit, json_option, note, pairs, yes_option
from chutes_core.sdk.loader import load_file
from chutes_core.sdk.manifest import deploy_body


@click.command()
@click.argument("chute_ref", metavar="MODULE:CHUTE")
@click.option("--public/--no-public", help="Everybody may see and call it.")
@click.option("--accept-fee/--no-accept-fee", help="Pay the deploy fee of a new chute.")
@click.option("--logo", default=None, help="A picture's file, or the id of an uploaded one.")
@click.option("--debug/--no-debug", help="Print what is sent.")
@yes_option
@json_option
def deploy(
    chute_ref: str,
    public: bool,
    accept_fee: bool,
    logo: str | None,
    debug: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Deploy a chute, or its next version. Its image must be built."""
    source, chute = load_file(chute_ref)
    with session.management() as client:
        body = deploy_body(chute, source, public=public, logo_id=logos.resolve(client, logo))
        if debug:
            note("\n".join(f"{name}: {value}" for name, value in body.items() if name != "code"))
        params = {"accept_fee": str(accept_fee or yes).lower()}
        answer: dict[str, Any] = client.call("POST", "/chutes/", body=body, params=params)
    text = pairs(
        (
            ("deployed", answer.get("name", chute.name)),
            ("chute id", answer["chute_id"]),
            ("version", answer["version"]),
            ("slug", answer.get("slug")),
        )
    )
    emit(answer, as_json=as_json, text=text)
