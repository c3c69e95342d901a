"""Loads a neuron's keys from a standard Bittensor wallet directory: hotkey and public coldkey only.

Called once, at the entrance of a neuron. Invariant: nothing here prompts, reads a password from
anywhere, or opens a coldkey; where a coldkey file lies beside the public one, the neuron does not
start (a stolen host must not be a stolen coldkey), unless ``allow_coldkey`` is set for a devnet.

Layout, as written by btcli: `<path>/<wallet>/coldkeypub.txt`, `<path>/<wallet>/hotkeys/<hotkey>`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from bittensor_core import (
    CRYPTO_SR25519,
    KeyfileError,
    Keypair,
    deserialize_keypair_from_keyfile_data,
    keyfile_data_is_encrypted,
)

from chutes_core.base.errors import Conflict, Invalid, NotFound

_COLDKEY_PUB = "coldkeypub.txt"


@dataclass(frozen=True)
class NeuronKeys:
    """What a neuron may hold: the signing hotkey, and the address of the coldkey that owns it."""

    hotkey: Keypair = field(repr=False)
    coldkey_ss58: str

    @property
    def hotkey_ss58(self) -> str:
        """Return the hotkey's address."""
        return str(self.hotkey.ss58_address)


def load_neuron_keys(
    wallet_path: str | Path, wallet_name: str, hotkey_name: str, *, allow_coldkey: bool = False
) -> NeuronKeys:
    """Return the hotkey and the coldkey's address of a wallet.

    Args:
        wallet_path: directory of wallets; ``~`` is expanded.
        wallet_name: the wallet (coldkey) name.
        hotkey_name: the hotkey's name.
        allow_coldkey: accept a coldkey file beside them; for a devnet only.

    Raises:
        NotFound: ``coldkeypub_missing`` or ``hotkey_missing``.
        Conflict: ``coldkey_present``.
        Invalid: ``hotkey_encrypted``, ``bad_keyfile`` or ``hotkey_not_sr25519``.
    """
    for name in (wallet_name, hotkey_name):
        if not name or name != Path(name).name or name in (".", ".."):
            raise Invalid("bad_wallet_name", f"{name!r} is not the name of a wallet or hotkey")
    wallet = Path(wallet_path).expanduser() / wallet_name
    coldkey_pub = _read(wallet / _COLDKEY_PUB, "coldkeypub_missing")
    hotkey_file = wallet / "hotkeys" / hotkey_name
    hotkey_data = _read(hotkey_file, "hotkey_missing")
    if not allow_coldkey:
        _refuse_coldkey(wallet)
    if keyfile_data_is_encrypted(hotkey_data):
        raise Invalid(
            "hotkey_encrypted",
            f"the hotkey file {hotkey_file} is encrypted and a neuron never asks for a password",
            hint="write the hotkey without a password (btcli's default), readable by its user only",
        )
    hotkey = _keypair(hotkey_data, hotkey_file)
    if hotkey.crypto_type != CRYPTO_SR25519:
        raise Invalid("hotkey_not_sr25519", f"the hotkey {hotkey_file} is not an sr25519 key")
    _require_private(hotkey, hotkey_file)
    return NeuronKeys(hotkey, str(_keypair(coldkey_pub, wallet / _COLDKEY_PUB).ss58_address))


def _refuse_coldkey(wallet: Path) -> None:
    for file in sorted(wallet.glob("coldkey*")):
        if file.name != _COLDKEY_PUB:
            raise Conflict(
                "coldkey_present",
                f"a coldkey lies beside the hotkey: {file}",
                hint=f"move it to an offline machine; a neuron needs only {_COLDKEY_PUB} "
                "(on a devnet: allow_coldkey)",
            )


def _read(file: Path, missing: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(
            missing,
            f"{file} does not exist",
            hint="create or regenerate it with btcli wallet, and copy no coldkey here",
        ) from error
    except OSError as error:
        raise Invalid(
            "bad_keyfile", f"{file} cannot be read", hint="check owner and mode of the file"
        ) from error


def _keypair(data: bytes, file: Path) -> Keypair:
    try:
        return deserialize_keypair_from_keyfile_data(data)
    except (KeyfileError, ValueError) as error:
        raise Invalid(
            "bad_keyfile", f"{file} is not a Bittensor keyfile", hint="regenerate it with btcli"
        ) from error


def _require_private(hotkey: Keypair, file: Path) -> None:
    try:
        hotkey.sign(b"chutes: does this keyfile sign?")
    except (KeyfileError, ValueError) as error:
        raise Invalid(
            "bad_keyfile", f"{file} holds no private key", hint="use the hotkey file, not its pub"
        ) from error
