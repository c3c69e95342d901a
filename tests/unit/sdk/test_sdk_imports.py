"""What importing costs, checked in fresh processes, and the doctests."""

import doctest
import importlib
import subprocess
import sys
import time

import pytest

import chutes_core

HEAVY = ("bittensor", "docker", "sqlite_utils", "torch", "uvicorn", "numpy", "chutes")
SDK = ["image", "chute", "cord", "job", "node_selector", "loader", "compat", "client", "manifest"]


def _modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_package_imports_nothing():
    """`import chutes_core` loads no other module of ours and no library."""
    loaded = _modules_after("import chutes_core")
    assert not {name for name in loaded if name.startswith("chutes_core.")}
    assert not loaded & {"fastapi", "pydantic", "httpx", *HEAVY}


@pytest.mark.parametrize(
    "module", [*(f"chutes_core.sdk.{name}" for name in SDK), "chutes_core.cli.main"]
)
def test_no_module_imports_a_heavy_library(module):
    """SDK and CLI never load the chain, the engine, the store or torch."""
    assert not _modules_after(f"import {module}") & set(HEAVY)


def test_every_lazy_export_is_there():
    """Each public name resolves, also in a fresh process with a from-import."""
    for name in chutes_core.__all__:
        assert getattr(chutes_core, name).__name__ == name
    assert set(chutes_core.__all__) <= set(dir(chutes_core))
    loaded = _modules_after(
        "from chutes_core import Chute, Image, NodeSelector, Job, Port, Invalid"
    )
    assert not loaded & set(HEAVY)


def test_an_unknown_export_is_an_attribute_error():
    """A name that is not public fails as on any module."""
    with pytest.raises(AttributeError, match="Nothing"):
        _ = chutes_core.Nothing


def test_declaring_a_chute_loads_no_http_client():
    """A chute file that is only declared does not pay for the client."""
    assert "httpx" not in _modules_after("import chutes_core.sdk.loader")


@pytest.mark.parametrize(
    "module", [f"chutes_core.sdk.{name}" for name in SDK] + ["chutes_core.cli.options"]
)
def test_examples_in_docstrings_hold(module):
    """Every example in a docstring gives what it shows."""
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_the_cost_of_importing_is_shown(capsys):
    """The times are printed for a person to see; machines differ too much to assert them."""
    with capsys.disabled():
        for module in (
            "chutes_core",
            "chutes_core.cli.main",
            "chutes_core.sdk.image",
            "chutes_core.sdk.chute",
        ):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            print(f"\nimport {module}: {time.perf_counter() - start:.2f} s", end="")
