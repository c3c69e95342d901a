"""`chutes transfer-balance`: give credit to another user.

Invariant: one call of this command moves credit once, however often its request is sent: the key
of the transfer is made here, before the first try.
"""

import secrets

import click

from chutes_core.base.units import format_tao, parse_tao
from chutes_core.cli import session
from chutes_core.cli.options import confirm, emit, json_option, yes_option


@click.command("transfer-balance")
@click.argument("user")
@click.option("--amount", required=True, metavar="TAO", help="How much, e.g. 0.5.")
@yes_option
@json_option
def transfer_balance(user: str, amount: str, yes: bool, as_json: bool) -> None:
    """Give some of your credit to USER (id or username)."""
    tao = format_tao(parse_tao(amount))
    confirm(f"Give {tao} TAO of your credit to {user}? It cannot be taken back.", yes=yes)
    body = {"user_id": user, "amount": tao, "key": secrets.token_hex(16)}
    with session.management() as client:
        answer = client.call("POST", "/users/balance_transfer", body=body)
    emit(answer, as_json=as_json, text=f"{answer['tao']} TAO given to {user}")
