"""Chute files of the public SDK mean the same here: its own words, frozen, against ours.

`public_files/expected.json` is what the public SDK 0.6.9 makes of the files beside it;
tests/e2e/test_public_sdk.py asks the package itself, and with files made by chance, too.
"""

import json
from pathlib import Path

import pytest

from chutes_core.sdk.loader import load_file
from chutes_core.sdk.manifest import inspection

FILES = Path(__file__).parent / "public_files"
EXPECTED = json.loads((FILES / "expected.json").read_text())


@pytest.fixture
def inspected(tmp_path):
    """Return a function that inspects one of the files."""

    def inspect(name):
        (tmp_path / f"{name}.py").write_text((FILES / f"{name}.txt").read_text())
        source, chute = load_file(f"{name}:chute", tmp_path)
        return json.loads(json.dumps(inspection(chute, source)))

    return inspect


@pytest.mark.parametrize("name", EXPECTED)
def test_ids_selector_and_options_are_the_same(inspected, name):
    """Chute id, node selector, jobs and the chute's options are those of the public SDK."""
    ours, theirs = inspected(name), EXPECTED[name]
    for field in theirs.keys() - {"cords", "image"}:
        assert ours[field] == theirs[field], field


@pytest.mark.parametrize("name", EXPECTED)
def test_the_image_is_the_same(inspected, name):
    """Image id and Dockerfile text are those of the public SDK."""
    ours, theirs = inspected(name)["image"], EXPECTED[name]["image"]
    if isinstance(theirs, str):
        assert ours["name"] == theirs
        return
    assert ours["image_id"] == theirs["image_id"]
    assert ours["dockerfile"] == theirs["dockerfile"]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_cords_are_the_same(inspected, name):
    """Paths, methods, flags and all three schemas are those of the public SDK."""
    assert inspected(name)["cords"] == EXPECTED[name]["cords"]
