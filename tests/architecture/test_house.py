"""The house: every module says what it is, nothing is a drawer, versions and pages agree."""

import ast
import re
from pathlib import Path

import pytest

from chutes_core.base.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path
    for folder in ("chutes_core", "graval", "neurons", "scripts")
    for path in (ROOT / folder).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_what_it_is(path):
    """Every module has a docstring of at least a sentence."""
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text is not None
    assert len(text) > 20


def test_no_room_is_a_drawer():
    """No module is called utils, helpers or misc."""
    names = {path.stem for path in MODULES}
    assert names & {"util", "utils", "helpers", "misc", "common"} == set()


def test_a_test_is_a_sentence():
    """Every test function outside tests of unusual shape has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}::{node.name}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]
    assert silent == []


def test_nothing_is_pickled():
    """No module of ours imports pickle or marshal, or names yaml.load."""
    for path in MODULES:
        text = path.read_text()
        assert not re.search(
            r"^\s*(import|from) (pickle|marshal|dill|cloudpickle)\b", text, re.M
        ), path


def test_the_version_is_the_same_everywhere():
    """base/version.py, setup.py and the changelog agree."""
    assert f'version="{VERSION}"' in (ROOT / "setup.py").read_text()
    assert VERSION in (ROOT / "CHANGELOG.md").read_text()


def test_links_between_pages_lead_somewhere():
    """Every relative link of README and docs names an existing file."""
    broken = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert broken == []


def test_decisions_are_short():
    """An ADR has at most 40 lines."""
    long = [
        path.name
        for path in (ROOT / "docs" / "adr").glob("*.md")
        if len(path.read_text().splitlines()) > 40
    ]
    assert long == []
