"""Wallet files, read without the bittensor package: a hotkey, and the coldkey's public part.

Layout of Bittensor wallets: {path}/{name}/hotkeys/{hotkey} and {path}/{name}/coldkeypub.txt, JSON.
Invariant: nothing here opens a coldkey or asks for a password.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from bittensor_core import Keypair

from chutes_core.base.errors import Invalid, NotFound

DEFAULT_PATH = "~/.bittensor/wallets"


@dataclass(frozen=True)
class WalletKeys:
    """What a registration needs of a wallet."""

    hotkey: Keypair
    hotkey_name: str
    hotkey_seed: str = field(repr=False)
    coldkey_ss58: str


def read_wallet(path: str, name: str, hotkey_name: str) -> WalletKeys:
    """Read the hotkey and the coldkey's address.

    Raises:
        NotFound: ``no_hotkey`` or ``no_coldkeypub``.
        Invalid: ``encrypted_hotkey`` or ``bad_key_file``.
    """
    folder = Path(path).expanduser() / name
    hotkey = _document(folder / "hotkeys" / hotkey_name, "no_hotkey")
    coldkey = _document(folder / "coldkeypub.txt", "no_coldkeypub")
    seed = str(hotkey.get("secretSeed") or "").removeprefix("0x")
    address = coldkey.get("ss58Address")
    if len(seed) != 64 or not isinstance(address, str):
        raise Invalid(
            "bad_key_file",
            f"the wallet in {folder} lacks the hotkey's seed or the coldkey's address",
            hint="make the keys anew with a current wallet tool",
        )
    try:
        keypair = Keypair.create_from_seed(bytes.fromhex(seed))
    except ValueError as error:
        raise Invalid("bad_key_file", "the hotkey's seed is no seed") from error
    return WalletKeys(keypair, hotkey_name, seed, address)


def _document(path: Path, missing_code: str) -> dict[str, object]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise NotFound(
            missing_code,
            f"{path} cannot be read",
            hint="check --wallet-path, --wallet-name and --hotkey",
        ) from error
    if raw.startswith((b"$NACL", b"$ANSIBLE_VAULT", b"gAAAA")):
        raise Invalid(
            "encrypted_hotkey",
            f"{path} is encrypted",
            hint="a hotkey signs every request: store it without a password",
        )
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise Invalid("bad_key_file", f"{path} is no key file") from error
    if not isinstance(document, dict):
        raise Invalid("bad_key_file", f"{path} is no key file")
    return document
