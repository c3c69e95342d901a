"""`chutes refund`: ask developer deposits back, and see how far a refund is."""

import time
from typing import Any

import click

from chutes_core.base.errors import ChainError, TimedOut
from chutes_core.base.units import format_tao
from chutes_core.cli import session
from chutes_core.cli.options import confirm, emit, json_option, pairs, table, yes_option

_POLL_S = 2.0


@click.command()
@click.option("--deposit", "deposits", multiple=True, help="Only this one; can be repeated.")
@click.option("--to", "address", default=None, help="Address; default: the proven coldkey.")
@click.option("--list", "listing", is_flag=True, help="Show refunds and ask for none.")
@click.option("--wait", is_flag=True, help="Wait until it is paid.")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait at most.")
@yes_option
@json_option
def refund(
    deposits: tuple[str, ...],
    address: str | None,
    listing: bool,
    wait: bool,
    timeout: float,
    yes: bool,
    as_json: bool,
) -> None:
    """Ask unlocked deposits back; the developer role goes at once, running chutes in a day."""
    with session.management() as client:
        if listing:
            found = client.call("GET", "/users/me/deposits", purpose="me")["refunds"]
            rows = [(r["refund_id"], format_tao(r["amount_rao"]), r["state"]) for r in found]
            emit(found, as_json=as_json, text=table(rows, ("REFUND", "TAO", "STATE")))
            return
        confirm(f"Ask the deposit back, to {address or 'the proven coldkey'}?", yes=yes)
        body: dict[str, Any] = {"address": address} if address else {}
        if deposits:
            body["deposits"] = list(deposits)
        asked = client.call("POST", "/return_developer_deposit", body=body)
        deadline = time.monotonic() + timeout
        while wait and asked["state"] in ("requested", "submitted"):
            if time.monotonic() >= deadline:
                raise TimedOut(
                    "refund_under_way",
                    f"the refund is {asked['state']}",
                    hint="chutes refund --list shows how far it is",
                )
            time.sleep(_POLL_S)
            path = f"/users/me/refunds/{asked['refund_id']}"
            asked = client.call("GET", path, purpose="me")
    if asked["state"] == "failed":
        raise ChainError(
            "refund_failed",
            f"the refund failed: {asked['reason']}",
            hint="the deposit is held again; ask once more",
            http_status=502,
        )
    text = pairs(
        (
            ("refund", asked["refund_id"]),
            ("state", asked["state"]),
            ("to", asked["address"]),
            ("amount", format_tao(asked["amount_rao"])),
            ("paid", format_tao(asked["paid_rao"]) if asked["paid_rao"] else None),
            ("fee", format_tao(asked["fee_rao"]) if asked["fee_rao"] else None),
            ("waits for", asked["reason"]),
        )
    )
    emit(asked, as_json=as_json, text=text)
