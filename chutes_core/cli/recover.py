"""`chutes recover`: give an account whose hotkey is lost a new one, by its proven coldkey."""

import os
import time

import click

from chutes_core.cli import wallet
from chutes_core.cli.link import EXPIRES_S, validator_of
from chutes_core.cli.options import emit, json_option, pairs
from chutes_core.sdk.client import ApiClient
from chutes_core.sdk.config import ClientConfig, config_path, load_config, save_config
from chutes_core.sdk.credentials import HotkeyCredentials


@click.command()
@click.option("--user-id", required=True, help="The account's user id.")
@click.option("--wallet-path", default=wallet.DEFAULT_PATH, show_default=True)
@click.option("--wallet-name", default="default", show_default=True)
@click.option("--hotkey", default="default", show_default=True, help="Name of the new hotkey.")
@click.option("--expiry", type=int, default=None, help="As it was printed.")
@click.option("--signature", default=None, help="The coldkey's signature, hex.")
@json_option
def recover(
    user_id: str,
    wallet_path: str,
    wallet_name: str,
    hotkey: str,
    expiry: int | None,
    signature: str | None,
    as_json: bool,
) -> None:
    """Print the text that the coldkey must sign; with its signature, take the account back.

    All API keys of the account end, and the configuration is written anew.
    """
    base_url = load_config().require_api_url()
    keys = wallet.read_wallet(wallet_path, wallet_name, hotkey)
    address = str(keys.hotkey.ss58_address)
    with ApiClient(base_url, HotkeyCredentials(keys.hotkey, user_id=None)) as client:
        if signature is None or expiry is None:
            until = int(time.time()) + EXPIRES_S
            place = f"{validator_of(client)}|{user_id}|{keys.coldkey_ss58}|{address}|{until}"
            asked = {
                "sign this text with the coldkey": f"chutes-recover/1|{place}",
                "then add": f"--expiry {until} --signature HEX",
            }
            emit(asked, as_json=as_json, text=pairs(asked.items()))
            return
        body = {
            "user": user_id,
            "coldkey": keys.coldkey_ss58,
            "expiry": expiry,
            "signature": signature,
        }
        account = client.call("POST", "/users/recover", body=body)
    config = ClientConfig(
        api_url=base_url,
        username=account["username"],
        user_id=account["user_id"],
        hotkey_seed=keys.hotkey_seed,
        hotkey_name=keys.hotkey_name,
        hotkey_ss58=address,
        payment_address=account["payment_address"],
    )
    save_config(config, config_path(os.environ))
    shown = (("recovered", account["username"]), ("fingerprint", account["fingerprint"]))
    emit(account, as_json=as_json, text=pairs(shown))
