"""scripts/fetch_metadata.py: hash-checked, idempotent, offline once it is there."""

import importlib.util
import io
import sys
import tarfile
from pathlib import Path

import pytest

from chutes_core.devnet.metadata import DEFAULT_METADATA

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "fetch_metadata.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("fetch_metadata", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script, monkeypatch, dest):
    monkeypatch.setattr(sys, "argv", ["fetch_metadata.py", "--dest", str(dest)])
    return script.main()


def archive(script, folder, content):
    path = folder / script.ARCHIVE
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo(script.MEMBER)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return path


def test_it_writes_where_the_chain_reads(script):
    """Script and chain agree on the default place."""
    assert script.DEFAULT_DEST == DEFAULT_METADATA


def test_a_file_that_is_there_needs_no_network(script, monkeypatch, tmp_path):
    """With the right bytes in place nothing is downloaded."""
    dest = tmp_path / "metadata.json"
    dest.write_bytes(b"right")
    monkeypatch.setattr(script, "MEMBER_SHA256", script._sha256(b"right"))
    monkeypatch.setattr(script, "_download", lambda _folder: pytest.fail("network used"))
    assert run(script, monkeypatch, dest) == 0


@pytest.mark.parametrize("right_archive", [True, False])
def test_other_bytes_are_never_written(script, monkeypatch, tmp_path, right_archive):
    """A wrong archive, and a right one with a wrong member, both fail and leave nothing."""
    path = archive(script, tmp_path, b"tampered")
    monkeypatch.setattr(script, "_download", lambda _folder: path)
    if right_archive:
        monkeypatch.setattr(script, "ARCHIVE_SHA256", script._sha256(path.read_bytes()))
    dest = tmp_path / "out" / "metadata.json"
    assert run(script, monkeypatch, dest) == 1
    assert not dest.parent.exists() or not list(dest.parent.iterdir())


def test_the_right_member_replaces_a_wrong_file(script, monkeypatch, tmp_path):
    """A damaged file is fetched again."""
    path = archive(script, tmp_path, b"right")
    monkeypatch.setattr(script, "_download", lambda _folder: path)
    monkeypatch.setattr(script, "ARCHIVE_SHA256", script._sha256(path.read_bytes()))
    monkeypatch.setattr(script, "MEMBER_SHA256", script._sha256(b"right"))
    dest = tmp_path / "out" / "metadata.json"
    dest.parent.mkdir()
    dest.write_bytes(b"damaged")
    assert run(script, monkeypatch, dest) == 0
    assert dest.read_bytes() == b"right"
    assert [entry.name for entry in dest.parent.iterdir()] == ["metadata.json"]
