"""`chutes register`: open an account with a hotkey and write the ini file."""

import os

import click

from chutes_core.base.errors import Conflict
from chutes_core.cli import wallet
from chutes_core.cli.options import emit, json_option, pairs, yes_option
from chutes_core.sdk.client import ApiClient
from chutes_core.sdk.config import ClientConfig, config_path, load_config, save_config
from chutes_core.sdk.credentials import HotkeyCredentials


@click.command()
@click.option("--username", required=True, help="3 to 32 of: a-z 0-9 _ -")
@click.option(
    "--wallet-path", "--wallets-path", "wallet_path", default=wallet.DEFAULT_PATH, show_default=True
)
@click.option("--wallet-name", "--wallet", "wallet_name", default="default", show_default=True)
@click.option("--hotkey", default="default", show_default=True, help="Name of the hotkey.")
@click.option("--token", default=None, help="Where the validator asks for one.")
@yes_option
@json_option
def register(
    username: str,
    wallet_path: str,
    wallet_name: str,
    hotkey: str,
    token: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Open an account with a hotkey of your wallet.

    Reads the hotkey and coldkeypub, never the coldkey. The configuration is written to
    CHUTES_CONFIG_PATH (~/.chutes/config.ini), readable by you alone.
    """
    config = load_config()
    path = config_path(os.environ)
    base_url = config.require_api_url()
    keys = wallet.read_wallet(wallet_path, wallet_name, hotkey)
    if config.user_id and config.hotkey_ss58 != keys.hotkey.ss58_address and not yes:
        raise Conflict(
            "already_configured",
            f"{path} holds the account {config.username!r}",
            hint="add --yes to replace it, or set CHUTES_CONFIG_PATH to another file",
        )
    with ApiClient(base_url, HotkeyCredentials(keys.hotkey, user_id=None)) as client:
        account = client.call(
            "POST",
            "/users/register",
            body={"username": username, "coldkey": keys.coldkey_ss58},
            params={"token": token} if token else None,
        )
    save_config(
        ClientConfig(
            api_url=base_url,
            username=account["username"],
            user_id=account["user_id"],
            hotkey_seed=keys.hotkey_seed,
            hotkey_name=keys.hotkey_name,
            hotkey_ss58=keys.hotkey.ss58_address,
            payment_address=account["payment_address"],
        ),
        path,
    )
    text = pairs(
        (
            ("registered", account["username"]),
            ("user id", account["user_id"]),
            ("hotkey", keys.hotkey.ss58_address),
            ("fingerprint", f"{account.get('fingerprint')}  (shown once: keep it)"),
            ("pay to", account["payment_address"]),
            ("configuration", path),
        )
    )
    emit({**account, "config_path": str(path)}, as_json=as_json, text=text)
