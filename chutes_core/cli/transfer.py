"""`chutes transfer-balance`: give credit to another user.

Invariant: one call of this command moves credit once, however often its request is sent: the key
of the transfer is made here, before the first try.
"""

import secrets

import click

from chutes_core.base.units import Rao, format_tao, parse_tao
from chutes_core.cli import session
from chutes_core.cli.options import confirm, emit, json_option, yes_option
from chutes_core.sdk.client import ApiClient


@click.command("transfer-balance")
@click.argument("user")
@click.option("--amount", metavar="TAO", help="How much, e.g. 0.5; default: all of it.")
@yes_option
@json_option
def transfer_balance(user: str, amount: str | None, yes: bool, as_json: bool) -> None:
    """Give some of your credit to USER (id or username)."""
    with session.management() as client:
        rao = parse_tao(amount) if amount is not None else _all_of(client)
        tao = format_tao(rao)
        confirm(f"Give {tao} TAO of your credit to {user}? It cannot be taken back.", yes=yes)
        body = {"user_id": user, "amount": tao, "key": secrets.token_hex(16)}
        answer = client.call("POST", "/users/balance_transfer", body=body)
    emit(answer, as_json=as_json, text=f"{answer['tao']} TAO given to {user}")


def _all_of(client: ApiClient) -> Rao:
    """Return the balance; what running calls hold of it is refused by the validator."""
    return Rao(int(client.call("GET", "/users/me", purpose="me")["balance_rao"]))
