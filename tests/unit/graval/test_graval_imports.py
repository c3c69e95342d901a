"""What importing graval loads, in a fresh process."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "triton", "bittensor", "chutes_core", "scipy")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Run a statement where torch and Triton can be imported; return the modules it loaded."""
    stubs = tmp_path_factory.mktemp("stubs")
    for name in ("torch", "triton"):
        (stubs / f"{name}.py").touch()
    paths = os.pathsep.join([str(stubs), *filter(None, sys.path)])

    def run(statement):
        code = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, timeout=120,
            env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        return set(json.loads(done.stdout))

    return run


def test_a_module_that_is_loaded_is_seen(loaded):
    """The stubs are found: what follows could fail."""
    assert {"torch", "triton"} <= loaded("import torch, triton")


@pytest.mark.parametrize(
    "module",
    ["graval", "graval.params", "graval.gpus", "graval.challenge", "graval.messages"],
)
def test_the_message_side_loads_no_numpy(loaded, module):
    """Whoever only carries messages pays for nothing else."""
    assert not loaded(f"import {module}") & {*HEAVY, "numpy"}


@pytest.mark.parametrize(
    "module",
    ["graval.verifier", "graval.golden", "graval.prover.prove", "graval.prover.numpy_backend"],
)
def test_the_verifier_never_loads_torch(loaded, module):
    """numpy is all that a verifier needs."""
    assert not loaded(f"import {module}") & set(HEAVY)


def test_building_and_checking_load_no_torch(loaded):
    """Not even a whole challenge, built and judged, reaches for torch."""
    statement = (
        "from graval import golden; from graval.verifier import check;"
        "from graval.params import *; p = PROFILES['test'];"
        "c = golden.golden_challenge(p); d = deadlines(p, reference('h100_sxm', 'test'), 0);"
        "assert check(c, c.expected1, c.expected2, 1, 1, d).accepted"
    )
    assert not loaded(statement) & set(HEAVY)
