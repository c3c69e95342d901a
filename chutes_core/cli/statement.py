"""`chutes statement`: every movement of your credit, newest first."""

import click

from chutes_core.cli import session
from chutes_core.cli.options import emit, json_option, table


@click.command()
@click.option("--page", default=0, show_default=True)
@click.option("--limit", default=25, show_default=True)
@json_option
def statement(page: int, limit: int, as_json: bool) -> None:
    """Show payments, charges and transfers, page by page."""
    params: dict[str, str | int | bool] = {"page": page, "limit": limit}
    with session.management() as client:
        answer = client.call("GET", "/users/me/statement", purpose="me", params=params)
    rows = [(item["at"], item["kind"], item["tao"], item["key"]) for item in answer["items"]]
    text = table(rows, ("AT", "KIND", "TAO", "KEY")) + f"\n{answer['total']} lines in all"
    emit(answer, as_json=as_json, text=text)
