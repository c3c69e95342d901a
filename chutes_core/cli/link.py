"""`chutes link` and `chutes unlink`: roles by a validator's or the subnet owner's hotkey, coldkeys.

Invariant: the linked hotkey signs here and is sent nowhere; a coldkey is never opened: its
signature comes from the wallet that holds it (btcli wallet sign).
"""

import time
from typing import Any
from urllib.parse import quote

import click

from chutes_core.base.errors import ChutesError
from chutes_core.cli import session, wallet
from chutes_core.cli.options import emit, json_option, pairs
from chutes_core.sdk.client import ApiClient

EXPIRES_S = 12 * 3600


@click.command()
@click.option("--validator", "kind", flag_value="validator", help="A validator's hotkey.")
@click.option("--subnet-owner", "kind", flag_value="subnet_owner", help="The owner's hotkey.")
@click.option("--coldkey", "kind", flag_value="coldkey", help="Prove your own coldkey.")
@click.option("--wallet-path", default=wallet.DEFAULT_PATH, show_default=True)
@click.option("--wallet-name", default="default", show_default=True)
@click.option("--hotkey", default="default", show_default=True, help="Name of the hotkey.")
@click.option("--address", default=None, help="With --coldkey: the coldkey, if not the registered.")
@click.option("--expiry", type=int, default=None, help="With --signature: as it was printed.")
@click.option("--signature", default=None, help="With --coldkey: its signature, hex.")
@json_option
def link(
    kind: str | None,
    wallet_path: str,
    wallet_name: str,
    hotkey: str,
    address: str | None,
    expiry: int | None,
    signature: str | None,
    as_json: bool,
) -> None:
    """Link a hotkey that validates or owns the subnet, or prove your coldkey."""
    if kind is None:
        raise click.UsageError("one of --validator, --subnet-owner and --coldkey")
    with session.management() as client:
        if kind == "coldkey":
            answer = _coldkey(client, address, expiry, signature)
        else:
            keys = wallet.read_wallet(wallet_path, wallet_name, hotkey)
            me = client.call("GET", "/users/me", purpose="me")
            linked = str(keys.hotkey.ss58_address)
            signed = bytes(keys.hotkey.sign(f"{linked}:{me['username']}".encode())).hex()
            params: dict[str, str | int | bool] = {"hotkey": linked, "signature": signed}
            answer = client.call("GET", f"/users/link_{kind}", purpose="me", params=params)
    emit(answer, as_json=as_json, text=pairs(answer.items()))


def _coldkey(
    client: ApiClient, address: str | None, expiry: int | None, signature: str | None
) -> dict[str, Any]:
    me = client.call("GET", "/users/me", purpose="me")
    coldkey = address or me["coldkey"]
    if signature is not None and expiry is not None:
        body = {"coldkey": coldkey, "expiry": expiry, "signature": signature}
        proven: dict[str, Any] = client.call("POST", "/users/coldkey_proof", body=body)
        return proven
    try:
        by_chain: dict[str, Any] = client.call("POST", "/users/coldkey_proof", body={})
    except ChutesError as error:
        if error.code != "hotkey_not_owned":
            raise
    else:
        return by_chain
    until = int(time.time()) + EXPIRES_S
    text = f"chutes-coldkey/1|{validator_of(client)}|{me['user_id']}|{coldkey}|{until}"
    return {
        "sign this text with the coldkey": text,
        "then run": f"chutes link --coldkey --address {coldkey} --expiry {until} --signature HEX",
    }


def validator_of(client: ApiClient) -> str:
    """Return the hotkey of the validator that a proof is for."""
    params: dict[str, str | int | bool] = {"nonce": f"{time.time_ns():032d}"}
    return str(client.call("GET", "/.well-known/chutes", params=params)["hotkey"])


@click.command()
@click.argument("hotkey_ss58", required=False)
@json_option
def unlink(hotkey_ss58: str | None, as_json: bool) -> None:
    """End a link; without an address, list the links."""
    with session.management() as client:
        if hotkey_ss58 is None:
            answer = client.call("GET", "/users/me/links", purpose="me")
            text = "\n".join(f"{x['hotkey']}  {x['kind']}" for x in answer["items"]) or "no links"
        else:
            path = f"/users/me/links/{quote(hotkey_ss58, safe='')}"
            answer = client.call("DELETE", path, purpose="me")
            text = f"unlinked {hotkey_ss58}"
    emit(answer, as_json=as_json, text=text)
