"""`chutes balance`: the account behind the configured credentials."""

import click

from chutes_core.cli import session
from chutes_core.cli.options import emit, json_option, pairs


@click.command()
@json_option
def balance(as_json: bool) -> None:
    """Show your account, its balance and where to pay."""
    with session.management() as client:
        account = client.call("GET", "/users/me", purpose="me")
    text = pairs(
        (
            ("username", account.get("username")),
            ("balance", account.get("balance")),
            ("pay to", account.get("payment_address")),
        )
    )
    emit(account, as_json=as_json, text=text)
