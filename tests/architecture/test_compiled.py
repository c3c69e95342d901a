"""The modules that are compiled where somebody asks for it (scripts/compile.py)."""

import importlib
import os
from pathlib import Path

import pytest

from chutes_core.base import compiled

ROOT = Path(__file__).parents[2]


def test_what_runs_is_what_the_sources_say():
    """A checkout with compiled modules of older sources is tested by nobody."""
    assert compiled.check() is bool(os.environ.get("CHUTES_TEST_COMPILED"))


def test_every_module_that_is_to_be_compiled_is_there(monkeypatch):
    """A module that was renamed takes its place in the list with it."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    sources = importlib.import_module("compile").SOURCES
    assert len(set(sources)) == len(sources)
    assert [name for name in sources if not (compiled.PACKAGE / name).is_file()] == []


@pytest.mark.skipif("CHUTES_TEST_COMPILED" not in os.environ, reason="nothing is compiled here")
def test_the_compiled_modules_are_the_ones_that_are_imported():
    """scripts/test_compiled.sh tests what it says."""
    for name in ("wire.sealing", "validator.gateway.plane.fast_call", "validator.gateway.holds"):
        module = importlib.import_module(f"chutes_core.{name}")
        assert module.__file__.endswith(compiled.suffix())
        assert str(compiled.PACKAGE) in module.__file__
