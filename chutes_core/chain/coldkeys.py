"""Opens a wallet's coldkey, asking for its password where there is one.

For commands that a person runs on the machine where the coldkey is (`chutes deposit --send`,
scripts/register.py, scripts/subnet.py); no neuron imports this. Invariant: the pair is returned to
the one call that signs with it and kept nowhere.
"""

from pathlib import Path
from typing import Any

import bittensor as bt
from bittensor_core import KeyfileError, WrongPasswordError

from chutes_core.base.errors import Invalid, NotFound


def wallet_of(path: str, name: str, hotkey_name: str = "default") -> bt.Wallet:
    """Return a wallet on disk; no file is read yet."""
    return bt.Wallet(name, hotkey_name, str(Path(path).expanduser()))


def coldkey_address(wallet: bt.Wallet) -> str:
    """Return the coldkey's address; no secret is read.

    Raises:
        NotFound: ``key_missing``. Invalid: ``bad_keyfile``.
    """
    try:
        return str(wallet.coldkeypub.ss58_address)
    except FileNotFoundError as error:
        raise NotFound(
            "key_missing", str(error), hint="check --wallet-path and --wallet-name"
        ) from error
    except (KeyfileError, ValueError, OSError) as error:
        raise Invalid("bad_keyfile", f"a keyfile of the wallet cannot be read: {error}") from error


def open_coldkey(wallet: bt.Wallet) -> Any:
    """Return the unlocked coldkey pair.

    Raises:
        NotFound: ``coldkey_missing``. Invalid: ``coldkey_locked``.
    """
    try:
        return wallet.unlock_coldkey()
    except FileNotFoundError as error:
        raise NotFound(
            "coldkey_missing", str(error), hint="run this on the machine that holds the coldkey"
        ) from error
    except (WrongPasswordError, KeyfileError, ValueError, EOFError) as error:
        raise Invalid(
            "coldkey_locked", "the coldkey could not be unlocked", hint="check its password"
        ) from error
