"""`chutes receipt`: the validator's signed word on one of your calls, checked here.

Invariant: nothing is printed as checked that was not; a file is checked without any server.
"""

import json
from pathlib import Path

import click
from pydantic import ValidationError

from chutes_core.base.errors import Invalid
from chutes_core.base.units import format_tao
from chutes_core.cli import session
from chutes_core.cli.options import emit, json_option
from chutes_core.wire.receipt import Receipt


@click.command()
@click.argument("invocation_id", required=False)
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check this receipt instead, offline.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Keep it here.")
@click.option("--validator", default=None, help="Hotkey (ss58) that must have signed it.")
@json_option
def receipt(
    invocation_id: str | None,
    file: Path | None,
    out: Path | None,
    validator: str | None,
    as_json: bool,
) -> None:
    """Fetch and check the receipt of a call: what was measured, what it cost, signed.

    INVOCATION_ID is what the header X-Chutes-InvocationID said.
    """
    if (invocation_id is None) == (file is None):
        raise Invalid(
            "which_receipt",
            "name one call, or one file",
            hint="chutes receipt ID, or chutes receipt --file receipt.json",
        )
    found = _parse(_fetch(invocation_id) if file is None else file.read_text())
    if invocation_id not in (None, found.call.invocation_id):
        raise Invalid(
            "another_receipt",
            f"the validator sent the receipt of another call: {found.call.invocation_id[:64]}",
            hint="ask again; what was sent says nothing of your call",
        )
    found.check(validator)
    if out is not None:
        out.write_text(found.model_dump_json(indent=2) + "\n")
    emit(found.model_dump(mode="json"), as_json=as_json, text=_text(found))


def _fetch(invocation_id: str | None) -> str:
    with session.management() as client:
        path = f"/invocations/{invocation_id}/receipt"
        return json.dumps(client.call("GET", path, purpose="invocations"))


def _parse(text: str) -> Receipt:
    try:
        return Receipt.model_validate_json(text)
    except ValidationError as error:
        raise Invalid(
            "not_a_receipt", "this is no receipt", hint="chutes receipt ID --out FILE writes one"
        ) from error


def _text(found: Receipt) -> str:
    call = found.call
    lines = [
        f"call      {call.invocation_id}: {call.outcome}, status {call.status}",
        f"instance  {call.launch_id} of chute {call.chute_id}",
        f"time      {call.usage_us / 1_000_000:.6f} s at {format_tao(call.rao_per_hour)} TAO/h",
        f"charged   {format_tao(call.charge_rao)} TAO" + (" (free)" if call.free else ""),
    ]
    if call.prompt_tokens is not None:
        lines.append(f"tokens    {call.prompt_tokens} in, {call.completion_tokens} out (claimed)")
    lines.append(f"signed by {found.batch.validator_hotkey}: the signature holds")
    return "\n".join(lines)
