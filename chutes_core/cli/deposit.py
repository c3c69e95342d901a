"""`chutes deposit`: where the developer deposit goes, what lies there, and when it is free again.

Invariant: without --send no coldkey is touched: any wallet or exchange can pay the address. With
--send or --wait the command returns once the transfer is final and counted, with its lock's end.
"""

import time
from collections.abc import Callable
from typing import Any

import click

from chutes_core.base.errors import Conflict, TimedOut
from chutes_core.base.units import format_tao, parse_tao
from chutes_core.cli import paying, session, wallet
from chutes_core.cli.options import confirm, emit, json_option, note, pairs, table, yes_option
from chutes_core.sdk.client import ApiClient

_POLL_S = 2.0
MISSING = "missing"

Found = dict[str, Any]


@click.command()
@click.option("--address", "only_address", is_flag=True, help="Print the address, nothing else.")
@click.option(
    "--send",
    "send_tao",
    is_flag=False,
    flag_value=MISSING,
    default=None,
    metavar="[TAO]",
    help="Send so much from your wallet's coldkey; without a number, what is still missing.",
)
@click.option(
    "--wait",
    "wait_tao",
    is_flag=False,
    flag_value=MISSING,
    default=None,
    metavar="[TAO]",
    help="Wait for so much more TAO; without a number, until nothing is missing.",
)
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait at most.")
@click.option(
    "--network",
    default="finney",
    show_default=True,
    envvar="CHUTES_CHAIN_URL",
    help="With --send: a node of the validator's chain; also CHUTES_CHAIN_URL.",
)
@click.option("--wallet-path", default=wallet.DEFAULT_PATH, show_default=True)
@click.option("--wallet-name", default="default", show_default=True, help="Whose coldkey pays.")
@yes_option
@json_option
def deposit(
    only_address: bool,
    send_tao: str | None,
    wait_tao: str | None,
    timeout: float,
    network: str,
    wallet_path: str,
    wallet_name: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Show the deposit address and your deposits; --send pays it, --wait waits for a transfer."""
    if sum((only_address, send_tao is not None, wait_tao is not None)) > 1:
        raise click.UsageError("one of --address, --send and --wait")
    with session.management() as client:
        found = _read(client)
        if only_address:
            address = found["deposit_address"]
            emit({"deposit_address": address}, as_json=as_json, text=address)
            return
        sent = None
        if wait_tao is not None:
            found = _wait(client, _goal(found, wait_tao), timeout)
        if send_tao is not None:
            rao = _missing(found) if send_tao == MISSING else parse_tao(send_tao)
            purse = (network, _genesis(client), wallet_path, wallet_name)
            where = found["deposit_address"]
            days = _lock_days(client)
            confirm(f"Send {format_tao(rao)} TAO to {where}, locked for {days} days?", yes=yes)
            sent = paying.send(paying.Payment(*purse, where, rao, timeout))
            note(f"final in block {sent['block_number']}; waiting until it is counted")
            found = _wait(client, lambda now: _counted(now, sent), timeout)
            found |= {"sent": {**sent, **_counted(found, sent)}}
    emit(found, as_json=as_json, text=_text(found))


def _read(client: ApiClient) -> Found:
    answer: Found = client.call("GET", "/users/me/deposits", purpose="me")
    return answer


def _total(found: Found) -> int:
    return sum(int(one["rao"]) for one in found["deposits"])


def _goal(found: Found, wait_tao: str) -> Callable[[Found], bool]:
    if wait_tao == MISSING:
        return lambda now: int(now["held_rao"]) >= int(now["required_rao"])
    goal = _total(found) + parse_tao(wait_tao)
    note(f"send {wait_tao} TAO to {found['deposit_address']}")
    return lambda now: _total(now) >= goal


def _missing(found: Found) -> int:
    rao = int(found["required_rao"]) - int(found["held_rao"])
    if rao <= 0:
        raise Conflict(
            "nothing_missing",
            f"{format_tao(found['held_rao'])} TAO are held, which is enough",
            hint="name a number of TAO to send more: chutes deposit --send 1",
        )
    return rao


def _genesis(client: ApiClient) -> str:
    params: dict[str, str | int | bool] = {"nonce": f"{time.time_ns():032d}"}
    return str(client.call("GET", "/.well-known/chutes", params=params)["genesis_hash"])


def _lock_days(client: ApiClient) -> str:
    seconds = int(client.call("GET", "/developer_deposit")["lock_seconds"])
    return f"{seconds / 86_400:g}"


def _counted(found: Found, sent: dict[str, Any]) -> dict[str, Any]:
    """Return the deposit that a payment became (an id begins with its block's hash), or {}."""
    start = f"{str(sent['block_hash']).removeprefix('0x')}:"
    for one in found["deposits"]:
        if str(one["deposit_id"]).startswith(start) and one["from"] == sent["payer"]:
            return dict(one)
    return {}


def _wait(client: ApiClient, done: Callable[[Found], Any], timeout_s: float) -> Found:
    deadline = time.monotonic() + timeout_s
    while True:
        found = _read(client)
        if done(found):
            return found
        if time.monotonic() >= deadline:
            raise TimedOut(
                "no_transfer_yet",
                "the transfer is not final and counted yet",
                hint="it counts after finality; run chutes deposit again to look",
            )
        time.sleep(_POLL_S)


def _text(found: Found) -> str:
    sent = found.get("sent")
    head = pairs(
        (
            ("sent", None if sent is None else f"{sent['tao']} TAO, free at {sent['unlocks_at']}"),
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
