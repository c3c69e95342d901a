"""`chutes startup-logs`: what an instance of a chute has printed from its start until now.

Invariant: it ends by itself; where several instances could be meant, none is guessed.
"""

import click

from chutes_core.base.errors import Invalid
from chutes_core.cli import session
from chutes_core.cli.options import json_option, note
from chutes_core.cli.status import follow, instances_of

BACKFILL = 10_000  # lines: all that a validator gives


@click.command("startup-logs")
@click.argument("chute")
@click.option("-i", "--instance", help="Of this instance.")
@click.option("-l", "--latest", is_flag=True, help="Of the newest instance.")
@json_option
def startup_logs(chute: str, instance: str | None, latest: bool, as_json: bool) -> None:
    """Print what an instance of CHUTE (name or id) printed since it started, and end.

    Nothing has to be decrypted: the miner hands the lines to the validator, and the validator to
    the chute's owner, while the instance is there. `chutes logs` goes on with what comes.
    """
    with session.management() as client:
        wanted = instance
        if wanted is None:
            found = instances_of(client, chute)
            if len(found) > 1 and not latest:
                raise Invalid(
                    "which_instance",
                    f"{chute} has {len(found)} instances: {', '.join(found)}",
                    hint="name one with --instance, or take the newest with --latest",
                )
            wanted = found[-1]
        note(f"instance {wanted}")
        follow(client, wanted, backfill=BACKFILL, go_on=False, as_json=as_json)
