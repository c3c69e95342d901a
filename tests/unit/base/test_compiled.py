"""Compiled modules and the record of what they were made of."""

import json

import pytest

from chutes_core.base import compiled
from chutes_core.base.errors import Conflict


@pytest.fixture
def package(tmp_path):
    """A package with one compiled module and the library that it needs."""
    (tmp_path / "rooms").mkdir()
    (tmp_path / "rooms/one.py").write_text("ONE = 1\n")
    (tmp_path / f"rooms/one{compiled.suffix()}").write_bytes(b"module")
    (tmp_path / f"library{compiled.suffix()}").write_bytes(b"library")
    record = {
        "sources": compiled.digests(["rooms/one.py"], tmp_path),
        "modules": compiled.digests(compiled.modules(tmp_path), tmp_path),
    }
    (tmp_path / compiled.RECORD).write_text(json.dumps({compiled.suffix(): record}))
    return tmp_path


def test_modules_of_these_sources_run(package):
    """What was compiled from these very sources runs."""
    assert compiled.check(package)


def test_without_modules_nothing_is_compiled(tmp_path):
    """A checkout as it was cloned runs interpreted."""
    assert not compiled.check(tmp_path)


def test_another_interpreters_modules_are_not_this_ones(package):
    """They have other names, so that this interpreter imports the sources, whatever these are."""
    path = package / compiled.RECORD
    path.write_text(path.read_text().replace(compiled.suffix(), ".cpython-27.so"))
    for name in compiled.modules(package):
        there = package / name
        there.rename(there.with_name(there.name.replace(compiled.suffix(), ".cpython-27.so")))
    (package / "rooms/one.py").write_text("ONE = 2\n")
    assert not compiled.check(package)


CHANGES = {
    "a source changed": lambda package: (package / "rooms/one.py").write_text("ONE = 2\n"),
    "a source is gone": lambda package: (package / "rooms/one.py").unlink(),
    "a module is gone": lambda package: (package / f"rooms/one{compiled.suffix()}").unlink(),
    "the library is gone": lambda package: (package / f"library{compiled.suffix()}").unlink(),
    "a module is cut": lambda package: (package / f"rooms/one{compiled.suffix()}").write_bytes(
        b"m"
    ),
    "one more": lambda package: (package / f"rooms/two{compiled.suffix()}").write_bytes(b""),
    "no record": lambda package: (package / compiled.RECORD).unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_that_of_the_sources_is_refused(package, change):
    """Nobody runs what they do not see."""
    CHANGES[change](package)
    with pytest.raises(Conflict) as refused:
        compiled.check(package)
    assert refused.value.code == "compiled_stale"
    assert "scripts/compile.py" in (refused.value.hint or "")
