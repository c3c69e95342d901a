"""Launch secrets at rest."""

import stat

import pytest

from chutes_core.base.errors import Invalid, ProtocolError
from chutes_core.validator.launches.vault import Vault


def test_the_master_key_is_made_once_and_kept(tmp_path):
    """The second start opens what the first one sealed; the file is its owner's alone."""
    path = tmp_path / "vault.key"
    sealed = Vault.open(path).seal("launch", "root", b"secret")
    assert Vault.open(path).reveal("launch", "root", sealed) == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_secret_opens_for_its_launch_and_kind_only(tmp_path):
    """A row that was copied to another launch is worth nothing."""
    vault = Vault.open(tmp_path / "vault.key")
    sealed = vault.seal("launch", "root", b"secret")
    for launch_id, kind in (("other", "root"), ("launch", "ticket")):
        with pytest.raises(ProtocolError):
            vault.reveal(launch_id, kind, sealed)


def test_a_damaged_master_key_stops_the_start(tmp_path):
    """It is never replaced: that would make every instance unreachable without a word."""
    path = tmp_path / "vault.key"
    path.write_bytes(b"short")
    with pytest.raises(Invalid) as caught:
        Vault.open(path)
    assert caught.value.code == "bad_master_key"
    assert path.read_bytes() == b"short"
