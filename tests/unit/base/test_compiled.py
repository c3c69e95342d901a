"""Compiled modules and the record of what they were made of."""

import json

import pytest

from chutes_core.base import compiled
from chutes_core.base.errors import Conflict


@pytest.fixture
def package(tmp_path):
    """A package with one compiled module."""
    (tmp_path / "one.py").write_text("ONE = 1\n")
    compiled.extension_of(tmp_path / "one.py").write_bytes(b"")
    sources = compiled.digests(["one.py"], tmp_path)
    record = {"suffix": compiled.suffix(), "sources": sources}
    (tmp_path / compiled.RECORD).write_text(json.dumps(record))
    return tmp_path


def test_modules_of_these_sources_run(package):
    """What was compiled from these very sources runs."""
    assert compiled.check(package)


def test_without_a_record_nothing_is_compiled(tmp_path):
    """A checkout as it was cloned runs interpreted."""
    assert not compiled.check(tmp_path)


def test_another_interpreters_modules_are_not_this_ones(package):
    """They have other names, so that this interpreter imports the sources."""
    path = package / compiled.RECORD
    path.write_text(path.read_text().replace(compiled.suffix(), ".cpython-27.so"))
    (package / "one.py").write_text("ONE = 2\n")
    assert not compiled.check(package)


@pytest.mark.parametrize("change", ["source", "no source", "module"])
def test_what_is_not_that_of_the_sources_is_refused(package, change):
    """A changed or a missing source, or a module that is gone: nobody runs what they do not see."""
    source = package / "one.py"
    if change == "source":
        source.write_text("ONE = 2\n")
    elif change == "no source":
        source.unlink()
    else:
        compiled.extension_of(source).unlink()
    with pytest.raises(Conflict) as refused:
        compiled.check(package)
    assert refused.value.code == "compiled_stale"
    assert "scripts/compile.py" in (refused.value.hint or "")
