"""A neuron loads hotkey and public coldkey, prompts for nothing, and refuses a coldkey."""

import os
import subprocess
import sys

import bittensor as bt
import pytest

from chutes_core.base.errors import Conflict, Invalid, NotFound
from chutes_core.chain.keys import load_neuron_keys


@pytest.fixture
def wallet(tmp_path):
    """A wallet as btcli writes it, with its coldkey taken away."""
    made = bt.Wallet("w", "h", str(tmp_path))
    made.create_new_coldkey(use_password=False, suppress=True)
    made.create_new_hotkey(suppress=True)
    os.unlink(tmp_path / "w" / "coldkey")
    return made


def test_hotkey_and_coldkey_address_are_loaded(wallet, tmp_path):
    """Both keys are those of the wallet, and the hotkey signs."""
    keys = load_neuron_keys(tmp_path, "w", "h")
    assert keys.hotkey_ss58 == wallet.hotkey.ss58_address
    assert keys.coldkey_ss58 == wallet.coldkeypub.ss58_address
    assert wallet.hotkey.verify(b"x", keys.hotkey.sign(b"x"))


@pytest.mark.parametrize("name", ["coldkey", "coldkey.bak"])
def test_coldkey_beside_them_is_refused(wallet, tmp_path, name):
    """A coldkey file, even a copy, stops the start and is named."""
    (tmp_path / "w" / name).write_bytes(b"secret")
    with pytest.raises(Conflict) as refused:
        load_neuron_keys(tmp_path, "w", "h")
    assert refused.value.code == "coldkey_present"
    assert "secret" not in str(refused.value)


def test_coldkey_is_accepted_by_the_devnet_flag(wallet, tmp_path):
    """With the flag for a devnet, the coldkey beside them is left alone."""
    (tmp_path / "w" / "coldkey").write_bytes(b"secret")
    assert load_neuron_keys(tmp_path, "w", "h", allow_coldkey=True).hotkey_ss58


def test_encrypted_hotkey_is_an_error_and_not_a_prompt(wallet, tmp_path):
    """An encrypted hotkey is refused at once, in a process with stdin closed."""
    wallet.hotkey_file.set_keypair(wallet.hotkey, encrypt=True, overwrite=True, password="p" * 12)
    program = (
        "import sys\n"
        "from chutes_core.base.errors import Invalid\n"
        "from chutes_core.chain.keys import load_neuron_keys\n"
        "try:\n    load_neuron_keys(sys.argv[1], 'w', 'h')\n"
        "except Invalid as error:\n    print(error.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "hotkey_encrypted"


@pytest.mark.parametrize(
    ("missing", "code"),
    [("coldkeypub.txt", "coldkeypub_missing"), ("hotkeys/h", "hotkey_missing")],
)
def test_missing_file_is_named(wallet, tmp_path, missing, code):
    """What is missing has a code of its own."""
    (tmp_path / "w" / missing).unlink()
    with pytest.raises(NotFound) as refused:
        load_neuron_keys(tmp_path, "w", "h")
    assert refused.value.code == code


@pytest.mark.parametrize("content", [b"", b"{}", b'{"ss58Address": "x"}', b"\xff\xfe"])
def test_broken_hotkey_file_is_a_typed_error(wallet, tmp_path, content):
    """A file that is no keyfile is a bad keyfile."""
    (tmp_path / "w" / "hotkeys" / "h").write_bytes(content)
    with pytest.raises(Invalid, match="bad_keyfile"):
        load_neuron_keys(tmp_path, "w", "h")


def test_public_file_in_the_place_of_the_hotkey_is_refused(wallet, tmp_path):
    """A hotkey without its private part could not sign anything."""
    public = (tmp_path / "w" / "coldkeypub.txt").read_bytes()
    (tmp_path / "w" / "hotkeys" / "h").write_bytes(public)
    with pytest.raises(Invalid, match="bad_keyfile"):
        load_neuron_keys(tmp_path, "w", "h")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc/passwd"])
def test_names_do_not_leave_the_wallet_directory(wallet, tmp_path, name):
    """A wallet or hotkey name is one file name."""
    with pytest.raises(Invalid, match="bad_wallet_name"):
        load_neuron_keys(tmp_path, "w", name)


def test_repr_shows_no_key(wallet, tmp_path):
    """The record prints without the hotkey."""
    assert "hotkey=" not in repr(load_neuron_keys(tmp_path, "w", "h"))


def test_keys_need_not_the_whole_sdk():
    """Loading keys imports the small wheel only."""
    program = "import sys, chutes_core.chain.keys; print('bittensor' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "False"
