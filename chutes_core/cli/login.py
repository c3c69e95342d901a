"""`chutes login` and `chutes refinger`: the public verbs, at a validator without a website.

`login` is for a second machine: it asks the validator whose account a hotkey has and writes the
configuration that `chutes register` wrote on the first. Invariant: nothing is written before the
validator has answered to the hotkey's own signature.
"""

import os
from dataclasses import replace

import click

from chutes_core.base.errors import Conflict, Invalid
from chutes_core.cli import wallet
from chutes_core.cli.options import emit, json_option, pairs, yes_option
from chutes_core.sdk.client import ApiClient
from chutes_core.sdk.config import ClientConfig, config_path, load_config, save_config
from chutes_core.sdk.credentials import HotkeyCredentials, keypair_of


@click.command()
@click.option(
    "--wallet-path", "--wallets-path", "wallet_path", default=wallet.DEFAULT_PATH, show_default=True
)
@click.option(
    "--wallet-name", "--wallet", "wallet_name", help="Default: the configuration's hotkey."
)
@click.option("--hotkey", default="default", show_default=True, help="Name of the hotkey.")
@click.option("--browser/--no-browser", default=False, help="There is no website to open.")
@yes_option
@json_option
def login(
    wallet_path: str,
    wallet_name: str | None,
    hotkey: str,
    browser: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write the configuration of an account that you have, by its hotkey's signature.

    For another machine of yours: reads the hotkey of a wallet, asks the validator for its account
    and writes CHUTES_CONFIG_PATH (~/.chutes/config.ini). Without --wallet it checks what is there.
    """
    if browser:
        raise Invalid(
            "no_website",
            "this validator has no website to log in to",
            hint="leave --browser out: commands sign with the hotkey, calls carry an API key",
        )
    config = load_config()
    if wallet_name is None:
        known = replace(config, api_key=None)  # it may be the environment's: the file keeps its own
    else:
        known = _of_wallet(config, wallet.read_wallet(wallet_path, wallet_name, hotkey), yes=yes)
    with ApiClient(config.require_api_url(), HotkeyCredentials(keypair_of(known), None)) as client:
        account = client.call("GET", "/users/me", purpose="me")
    path = config_path(os.environ)
    save_config(
        replace(
            known,
            username=account["username"],
            user_id=account["user_id"],
            payment_address=account["payment_address"],
        ),
        path,
    )
    shown = (
        ("account", account["username"]),
        ("user id", account["user_id"]),
        ("hotkey", known.hotkey_ss58),
        ("configuration", path),
    )
    emit({**account, "config_path": str(path)}, as_json=as_json, text=pairs(shown))


@click.command()
@click.option("--hotkey-path", help="For the public command's sake.")
@json_option
def refinger(hotkey_path: str | None, as_json: bool) -> None:
    """Refuse: a fingerprint opens nothing here, so there is none to change."""
    del hotkey_path, as_json
    raise Invalid(
        "not_offered",
        "a fingerprint is a website's password, and this validator has no website",
        hint="an account whose hotkey is lost is taken back by its coldkey: chutes recover",
    )


def _of_wallet(config: ClientConfig, keys: wallet.WalletKeys, *, yes: bool) -> ClientConfig:
    """Return the configuration with a wallet's hotkey; another account's API key goes.

    Raises:
        Conflict: ``already_configured``.
    """
    address = str(keys.hotkey.ss58_address)
    other = config.user_id is not None and config.hotkey_ss58 != address
    if other and not yes:
        raise Conflict(
            "already_configured",
            f"the configuration holds the account {config.username!r}",
            hint="add --yes to replace it, or set CHUTES_CONFIG_PATH to another file",
        )
    return ClientConfig(
        api_url=config.require_api_url(),
        api_key="" if other else None,
        hotkey_seed=keys.hotkey_seed,
        hotkey_name=keys.hotkey_name,
        hotkey_ss58=address,
    )
