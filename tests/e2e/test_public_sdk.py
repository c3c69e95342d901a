"""Chute files mean here what they mean to the public SDK: asked of the package itself.

tests/unit/sdk/test_public_parity.py holds our answers against the frozen ones, everywhere; this
module asks the package from PyPI, with the same files and with others made by chance.
"""

import json
import subprocess
from importlib.metadata import version

import pytest

from chutes_core.sdk.loader import load_file
from chutes_core.sdk.manifest import inspection
from scripts.localnet import ROOT
from tests.e2e.chute_maker import Maker
from tests.e2e.public_client import installed

pytestmark = pytest.mark.timeout(600)  # it may install the package

FILES = ROOT / "tests" / "unit" / "sdk" / "public_files"
DUMP = ROOT / "tests" / "e2e" / "public_dump.py"
SEEDS = range(40)


@pytest.fixture(scope="module")
def python():
    """The Python of the public client's environment."""
    binaries, why = installed()
    if binaries is None:
        pytest.skip(f"the public client cannot be installed here: {why}")
    ask = "import importlib.metadata as m; print(m.version('pydantic'))"
    command = [str(binaries / "python"), "-c", ask]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    theirs = done.stdout.strip()
    if theirs.split(".")[:2] != version("pydantic").split(".")[:2]:
        pytest.skip(f"it has pydantic {theirs}, which writes other schemas")
    return binaries / "python"


@pytest.fixture
def folder(tmp_path):
    """A folder with what the images of the files add."""
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "folder" / "sub" / "a.py").write_text("x")
    return tmp_path


def theirs(python, folder, files):
    command = [str(python), str(DUMP), *map(str, files)]
    environ = {"HOME": str(folder), "CHUTES_CONFIG_PATH": str(folder / "none.ini")}
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_frozen_answers_are_those_of_the_package(python, folder):
    """What test_public_parity.py expects is what the package says today."""
    frozen = json.loads((FILES / "expected.json").read_text())
    assert theirs(python, folder, sorted(FILES.glob("*.txt"))) == frozen


def test_files_made_by_chance_mean_the_same(python, folder):
    """Ids, Dockerfile, selector, options, jobs, paths, methods and schemas agree, file by file."""
    for seed in SEEDS:
        (folder / f"made_{seed}.py").write_text(Maker(seed).file())
    expected = theirs(python, folder, sorted(folder.glob("made_*.py")))
    for name, document in expected.items():
        source, chute = load_file(f"{name}:chute", folder)
        ours = json.loads(json.dumps(inspection(chute, source)))
        ours["image"] = {key: ours["image"][key] for key in document["image"]}
        assert {key: ours[key] for key in document} == document, name
