"""The runner's wheel: reproducible, complete, and in step with the other lists of requirements."""

import io
import re
import zipfile
from pathlib import Path

from chutes_core.validator.catalog.wheel import NEEDS, runner_wheel

ROOT = Path(__file__).resolve().parents[3]


def test_equal_sources_give_equal_bytes():
    """The engine's layer cache depends on it."""
    assert runner_wheel() == runner_wheel()


def test_the_wheel_holds_what_runs_in_a_container_and_no_neuron():
    """Runner, SDK, wire, base and graval; neither validator nor miner."""
    wheel = runner_wheel()
    names = zipfile.ZipFile(io.BytesIO(wheel.data)).namelist()
    for name in ("chutes_core/runner/__main__.py", "chutes_core/sdk/compat.py", "graval/prf.py"):
        assert name in names
    assert not [name for name in names if re.match(r"chutes_core/(validator|miner|engine)/", name)]
    assert wheel.name.startswith("chutes_core-")


def test_the_lists_of_requirements_are_one():
    """The wheel's, the base image's and the package's own name the same."""
    lines = (ROOT / "images" / "cpu" / "requirements.txt").read_text().splitlines()
    assert tuple(line for line in lines if line and not line.startswith("#")) == NEEDS
    setup = (ROOT / "setup.py").read_text()
    for need in NEEDS:
        assert need.startswith("numpy") or f'"{need}"' in setup
