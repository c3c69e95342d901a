"""Imports: rooms stay light, importing does no I/O, and lazy exports do not smuggle.

import-linter checks the layers statically; these tests look at what really gets loaded, each in a
fresh process.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("bittensor", "docker", "sqlite_utils", "torch", "triton", "numpy", "loguru", "uvicorn")
LIGHT = {
    "chutes_core": HEAVY,
    "chutes_core.base.errors": HEAVY,
    "chutes_core.wire.connection": HEAVY,
    "chutes_core.wire.signing": HEAVY,
    "chutes_core.sdk.chute": HEAVY,
    "chutes_core.cli.main": HEAVY,
    "chutes_core.runner.app": HEAVY,
    "chutes_core.validator.domain.snapshot": HEAVY,
    "graval": HEAVY,
    "graval.challenge": HEAVY,
    "graval.messages": HEAVY,
    "graval.verifier": ("torch", "triton", "bittensor", "docker"),
}
ONLY_HERE = {
    "bittensor": ("chutes_core/chain", "chutes_core/devnet"),
    "docker": ("chutes_core/engine",),
    "torch": ("graval/prover",),
    "substrateinterface": ("chutes_core/chain",),
}


def loaded_by(module):
    """Return the modules that importing one in a fresh process loads."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_a_light_room_loads_nothing_heavy(module):
    """Importing it in a fresh process leaves the heavy packages unloaded."""
    loaded = loaded_by(module)
    assert [name for name in LIGHT[module] if name in loaded] == []


def sources(*folders):
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def imports_of(path):
    """Yield (module, is inside a function) of every import of a file."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) in inside


@pytest.mark.parametrize("package", sorted(ONLY_HERE))
def test_a_foreign_package_has_one_room(package):
    """Each big dependency is imported by the room that adapts it and by no other."""
    found = {
        str(path.relative_to(ROOT))
        for path in sources("chutes_core", "graval", "neurons")
        for module, _ in imports_of(path)
        if module.split(".")[0] == package
    }
    strangers = {name for name in found if not name.startswith(ONLY_HERE[package])}
    assert strangers == set()


def test_no_cycle_is_hidden_by_an_import_inside_a_function():
    """Inside functions only foreign packages are imported, never a room of ours."""
    hidden = {
        (str(path.relative_to(ROOT)), module)
        for path in sources("chutes_core", "graval")
        if path.name != "__init__.py"
        for module, is_inside in imports_of(path)
        if is_inside and module.split(".")[0] in ("chutes_core", "graval")
    }
    # Late for the sake of start-up time, not of a cycle: the command line loads a noun when it is
    # asked for, a cord loads an HTTP client when it is called from afar, and graval loads what
    # needs a CUDA device (a kernel of one architecture, the ceilings of a bench) when there is one.
    late = {
        ("chutes_core/sdk/cord.py", "chutes_core.sdk.remote"),
        ("graval/bench.py", "graval.prover.ceilings"),
        ("graval/prover/triton_backend.py", "graval.prover"),
    }
    strangers = {entry for entry in hidden if not entry[0].startswith("chutes_core/cli/")}
    assert strangers - late == set()


def test_the_graval_prover_has_no_importer():
    """The prover is a child process; nobody imports it."""
    found = {
        str(path.relative_to(ROOT))
        for path in sources("chutes_core", "neurons")
        for module, _ in imports_of(path)
        if module.startswith("graval.prover")
    }
    assert found == set()
