"""`chutes deposit`: where the developer deposit goes, what lies there, and when it is free again.

Invariant: no coldkey is touched here. Any wallet or exchange can pay the address; with --wait the
command returns once the transfer is final and counted.
"""

import time
from typing import Any

import click

from chutes_core.base.errors import TimedOut
from chutes_core.base.units import format_tao, parse_tao
from chutes_core.cli import session
from chutes_core.cli.options import emit, json_option, note, pairs, table
from chutes_core.sdk.client import ApiClient

_POLL_S = 2.0


@click.command()
@click.option("--wait", "amount", default=None, metavar="TAO", help="Wait for so much more TAO.")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait at most.")
@json_option
def deposit(amount: str | None, timeout: float, as_json: bool) -> None:
    """Show the deposit address and your deposits; --wait TAO waits for a transfer."""
    with session.management() as client:
        found = _read(client)
        if amount is not None:
            note(f"send {amount} TAO to {found['deposit_address']}")
            found = _wait(client, _total(found) + parse_tao(amount), timeout)
    emit(found, as_json=as_json, text=_text(found))


def _read(client: ApiClient) -> dict[str, Any]:
    answer: dict[str, Any] = client.call("GET", "/users/me/deposits", purpose="me")
    return answer


def _total(found: dict[str, Any]) -> int:
    return sum(int(one["rao"]) for one in found["deposits"])


def _wait(client: ApiClient, rao: int, timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        found = _read(client)
        if _total(found) >= rao:
            return found
        if time.monotonic() >= deadline:
            raise TimedOut(
                "no_transfer_yet",
                "the transfer is not final and counted yet",
                hint="it counts after finality; run chutes deposit again to look",
            )
        time.sleep(_POLL_S)


def _text(found: dict[str, Any]) -> str:
    head = pairs(
        (
            ("send TAO to", found["deposit_address"]),
            ("asked", format_tao(found["required_rao"])),
            ("held", format_tao(found["held_rao"])),
            ("chutes drain at", found["chutes_drain_at"]),
        )
    )
    rows = [(d["deposit_id"], d["tao"], d["state"], d["unlocks_at"]) for d in found["deposits"]]
    if not rows:
        return head
    return f"{head}\n\n{table(rows, ('DEPOSIT', 'TAO', 'STATE', 'FREE AT'))}"
