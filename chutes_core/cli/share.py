"""`chutes share` and `chutes report`: two short words to the validator about a chute or a call."""

import click

from chutes_core.cli import session
from chutes_core.cli.options import emit, json_option


@click.command()
@click.option("--chute-id", required=True, help="The chute: id or name.")
@click.option("--user-id", required=True, help="With whom: id or username.")
@click.option("--remove/--no-remove", help="Take the right back.")
@json_option
def share(chute_id: str, user_id: str, remove: bool, as_json: bool) -> None:
    """Let another user see and call a chute of yours."""
    verb = "unshare" if remove else "share"
    with session.management() as client:
        body = {"chute_id_or_name": chute_id, "user_id_or_name": user_id}
        done = client.call("POST", f"/chutes/{verb}", body=body)
    emit(done, as_json=as_json, text=str(done["status"]))


@click.command()
@click.option("--invocation-id", required=True, help="From the header X-Chutes-InvocationID.")
@click.option("--reason", required=True, help="What was wrong.")
@json_option
def report(invocation_id: str, reason: str, as_json: bool) -> None:
    """Say what was wrong with a call of yours."""
    with session.management() as client:
        path = f"/invocations/{invocation_id}/report"
        done = client.call("POST", path, body={"reason": reason})
    emit(done, as_json=as_json, text=str(done["status"]))
