"""`import chutes` is our SDK, with and without a foreign package of that name."""

import importlib
import subprocess
import sys
from textwrap import dedent

import pytest

from chutes_core.sdk import compat
from chutes_core.sdk.chute import Chute, ChutePack
from chutes_core.sdk.image import Image
from chutes_core.sdk.job import Job, Port
from chutes_core.sdk.node_selector import NodeSelector


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A package named chutes on the path, as the public client would be."""
    package = tmp_path / "chutes"
    (package / "chute").mkdir(parents=True)
    (package / "__init__.py").write_text("FOREIGN = True\n")
    (package / "image.py").write_text("class Image:\n    FOREIGN = True\n")
    (package / "extra.py").write_text("FOREIGN = True\n")
    (package / "chute" / "__init__.py").write_text("class Chute:\n    FOREIGN = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    compat.uninstall()
    for name in [name for name in sys.modules if name.split(".")[0] == "chutes"]:
        del sys.modules[name]


def test_importing_the_module_installs_nothing():
    """Only install() changes what `import chutes` means."""
    assert not any(isinstance(finder, compat.ChutesFinder) for finder in sys.meta_path)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("chutes")


def test_the_public_names_are_ours():
    """Every public import path leads to the SDK's own objects."""
    compat.install()
    chute = importlib.import_module("chutes.chute")
    assert (chute.Chute, chute.ChutePack, chute.NodeSelector) == (Chute, ChutePack, NodeSelector)
    assert (chute.Job, chute.Port) == (Job, Port)
    assert importlib.import_module("chutes.image").Image is Image
    assert importlib.import_module("chutes.chute.base").Chute is Chute
    assert importlib.import_module("chutes.chute.node_selector").NodeSelector is NodeSelector
    assert importlib.import_module("chutes.chute.job").Port is Port


def test_star_imports_and_submodule_access_work():
    """`import chutes.image` gives chutes.image, and a star import the public names."""
    compat.install()
    space: dict = {}
    exec("import chutes.image\nfrom chutes.chute import *\nx = chutes.image.Image", space)
    assert space["x"] is Image
    assert space["Chute"] is Chute


def test_a_foreign_package_is_set_aside(foreign):
    """Installed or even imported already, the foreign package gives way, submodules too."""
    assert importlib.import_module("chutes").FOREIGN
    assert importlib.import_module("chutes.image").Image.FOREIGN
    compat.install()
    assert importlib.import_module("chutes.image").Image is Image
    assert importlib.import_module("chutes.chute").Chute is Chute
    assert not hasattr(importlib.import_module("chutes"), "FOREIGN")
    with pytest.raises(ModuleNotFoundError, match="not part of this SDK"):
        importlib.import_module("chutes.extra")


def test_uninstall_gives_the_foreign_package_back(foreign):
    """After uninstall the name means what it meant before."""
    compat.install()
    importlib.import_module("chutes.image")
    compat.uninstall()
    assert importlib.import_module("chutes.image").Image.FOREIGN


def test_install_is_idempotent_and_first():
    """Installing twice leaves one finder, and it is asked first."""
    compat.install()
    compat.install()
    assert isinstance(sys.meta_path[0], compat.ChutesFinder)
    assert sum(isinstance(finder, compat.ChutesFinder) for finder in sys.meta_path) == 1


def test_other_imports_are_left_alone():
    """The finder answers for `chutes` and what is below it, not for names that begin alike."""
    finder = compat.ChutesFinder()
    assert finder.find_spec("chutes_core", None) is None
    assert finder.find_spec("json", None) is None


@pytest.mark.parametrize("template", ["vllm", "sglang", "embedding", "diffusion"])
def test_every_template_has_its_builder(template):
    """`from chutes.chute.template.x import build_x_chute` gives the function of that name."""
    compat.install()
    module = importlib.import_module(f"chutes.chute.template.{template}")
    assert callable(getattr(module, f"build_{template}_chute"))
    with pytest.raises(ModuleNotFoundError, match="not part of this SDK"):
        importlib.import_module("chutes.chute.template.other")


def test_the_loader_wins_over_a_foreign_package_in_a_fresh_process(foreign, tmp_path):
    """A chute file loads with our SDK in a process where the foreign package comes first."""
    (tmp_path / "app.py").write_text(
        dedent(
            """
            from chutes.chute import Chute
            from chutes.image import Image
            chute = Chute(username="bob", name="app", image=Image("bob", "app", "1"))
            """
        )
    )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import chutes; assert chutes.FOREIGN\n"
        "from pathlib import Path\n"
        "from chutes_core.sdk.loader import load_chute\n"
        f"print(type(load_chute('app:chute', Path({str(tmp_path)!r}))).__module__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "chutes_core.sdk.chute"
