"""Loading chute files: references, code text, and errors with the failing line."""

import sys
from textwrap import dedent

import pytest

from chutes_core.base.errors import Invalid, NotFound
from chutes_core.sdk.chute import Chute
from chutes_core.sdk.loader import ChuteFileError, load_chute, load_code, read_source

GOOD = dedent(
    """
    from __future__ import annotations
    from chutes.image import Image
    from chutes.chute import Chute, NodeSelector
    from pydantic import BaseModel

    class Ask(BaseModel):
        text: str

    chute = Chute(username="bob", name="app", image=Image("bob", "app", "1"))

    @chute.cord(public_api_path="/v1/ask")
    async def ask(self, given: Ask) -> Ask:
        return given
    """
)


@pytest.mark.parametrize("ref", ["my_app:chute", "my_app.py:chute"])
def test_a_reference_names_a_file_and_a_variable(tmp_path, ref):
    """module:variable and file.py:variable lead to the same chute."""
    (tmp_path / "my_app.py").write_text(GOOD)
    chute = load_chute(ref, tmp_path)
    assert isinstance(chute, Chute)
    assert chute.cords[0].path == "/ask"


@pytest.mark.parametrize("ref", ["apps.my_app:chute", "apps/my_app.py:chute"])
def test_a_reference_may_name_a_folder(tmp_path, ref):
    """A file in a folder is named with dots or slashes; what travels is its plain name."""
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "my_app.py").write_text(GOOD)
    source = read_source(ref, tmp_path)
    assert (source.filename, source.ref_str) == ("my_app.py", "my_app:chute")
    assert source.code == GOOD


def test_the_runner_loads_from_text():
    """Text, file name and reference are enough; postponed hints of the file resolve."""
    chute = load_code(GOOD, "my_app.py", "my_app:chute")
    assert chute.cords[0].input_schema["definitions"]["Ask"]["type"] == "object"


def test_a_pack_stands_for_its_chute():
    """A variable that holds a ChutePack gives its chute."""
    code = GOOD + "from chutes.chute import ChutePack\npack = ChutePack(chute=chute)\n"
    assert load_code(code, "my_app.py", "my_app:pack").name == "app"


@pytest.mark.parametrize("ref", ["my_app", ":chute", "my_app:", "my_app:a b"])
def test_a_reference_without_a_variable_is_explained(tmp_path, ref):
    """The hint shows how a reference is written."""
    with pytest.raises(Invalid, match="bad_ref") as caught:
        load_chute(ref, tmp_path)
    assert "my_chute:chute" in caught.value.hint


def test_a_missing_file_and_a_missing_variable(tmp_path):
    """What is not there is named; the chutes that are there are listed."""
    with pytest.raises(NotFound, match="chute_file_missing"):
        load_chute("nothing:chute", tmp_path)
    with pytest.raises(NotFound, match="chute_variable_missing") as caught:
        load_code(GOOD, "my_app.py", "my_app:other")
    assert caught.value.hint.endswith("chute")
    with pytest.raises(Invalid, match="not_a_chute"):
        load_code(GOOD, "my_app.py", "my_app:Ask")


@pytest.mark.parametrize(
    ("code", "line", "shown", "words"),
    [
        ("x = 1\nif x\n    y = 2\n", 2, "if x", "chute_syntax"),
        ("a = 1\n\nb = 1 / 0\n", 3, "b = 1 / 0", "ZeroDivisionError"),
        ("import numpy_that_is_not_there\n", 1, "import numpy_that_is_not_there", "inside a hook"),
        ("import sys\nsys.exit(3)\n", 2, "sys.exit(3)", "SystemExit"),
        ("def f():\n    raise KeyError('k')\nf()\n", 2, "raise KeyError('k')", "KeyError"),
        (
            "from chutes.image import Image\nImage('a', 'b d', '1')\n",
            2,
            "Image('a', 'b d', '1')",
            "bad_image_name",
        ),
        (
            "from chutes.chute import NodeSelector\nNodeSelector(gpu_count=99)\n",
            2,
            "NodeSelector(gpu_count=99)",
            "gpu_count",
        ),
        ("from chutes.chute import Nothing\n", 1, "from chutes.chute import Nothing", "Nothing"),
        ("import chutes.nothing\n", 1, "import chutes.nothing", "not part of this SDK"),
        (
            "from chutes.chute.template.other import build\n",
            1,
            "from chutes.chute.template.other import build",
            "not part of this SDK",
        ),
        ("a\x00b", 0, "", "null bytes"),
    ],
)
def test_an_error_names_the_failing_line(code, line, shown, words):
    """Whatever a chute file raises becomes one typed error with its line and text."""
    with pytest.raises(ChuteFileError) as caught:
        load_code(code, "my_app.py", "my_app:chute")
    assert (caught.value.line, caught.value.source_line) == (line, shown)
    assert words in str(caught.value)
    assert "my_app.py" in str(caught.value)


def test_a_chute_file_shadows_no_module():
    """A file named like a library does not replace that library."""
    import json

    load_code(GOOD, "json.py", "json:chute")
    assert sys.modules["json"] is json


def test_modules_beside_the_file_can_be_imported(tmp_path, monkeypatch):
    """A chute file imports its neighbours, and a neighbour shadows no library."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_the_chute.py").write_text("WORD = 'hi'\n")
    (tmp_path / "colorsys.py").write_text("raise ValueError('shadowed')\n")
    code = "import colorsys\nfrom beside_the_chute import WORD\n" + GOOD.lstrip().partition("\n")[2]
    (tmp_path / "my_app.py").write_text(code)
    assert load_chute("my_app:chute", tmp_path).name == "app"
    del sys.modules["beside_the_chute"]


def test_a_failed_file_is_not_left_behind():
    """A file that failed is not importable half-made."""
    with pytest.raises(ChuteFileError):
        load_code("raise ValueError", "my_app.py", "my_app:chute")
    assert "chute_file_my_app" not in sys.modules


def test_dataclasses_and_models_in_a_file_work():
    """Types of the file are found again by their module's name."""
    code = GOOD + dedent(
        """
        from dataclasses import dataclass

        @dataclass
        class Point:
            x: int

        @chute.cord()
        async def move(self, point: Point) -> Point:
            return point
        """
    )
    chute = load_code(code, "my_app.py", "my_app:chute")
    assert chute.cords[1].input.from_body({"x": 1})["point"].x == 1
