"""docs/limits.md is the code: every row's value is the constant's, and a test reaches it."""

import ast
import dataclasses
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "limits.md"
ROW = re.compile(
    r"\| (?P<what>[^|]+) \| (?P<value>[^|]+) \| `(?P<where>[\w.]+:[\w.]+)` \| (?P<then>[^|]+) \|"
    r" `(?P<test>tests/[\w/]+\.py::test_\w+)` \|"
)


@dataclasses.dataclass(frozen=True)
class Row:
    section: str
    value: float
    where: str
    test: str


def read_rows():
    rows, section = [], ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip()
        elif line.startswith("|") and not re.match(r"\|( bound |---)", line):
            found = ROW.fullmatch(line)
            assert found is not None, f"no row of the table: {line}"
            value = float(found["value"].replace("_", ""))
            rows.append(Row(section, value, found["where"], found["test"]))
    return rows


ROWS = read_rows()


def value_of(where):
    """Return a constant, or the default of a field of a dataclass or of settings."""
    module, _, path = where.partition(":")
    name, _, field = path.partition(".")
    found = getattr(importlib.import_module(module), name)
    if not field:
        return found
    if dataclasses.is_dataclass(found):
        return {one.name: one.default for one in dataclasses.fields(found)}[field]
    if isinstance(found, dict):
        return found[field]
    return found.model_fields[field].default


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.where)
def test_the_page_says_what_the_code_says(row):
    """The value on the page is the value in the code."""
    assert value_of(row.where) == row.value


def functions_of(path):
    """Return the tests of a file: those that pytest collects, at its top or in a class of tests."""
    if not (path.is_file() and path.name.startswith("test_")):
        return {}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text())
    groups = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name[:4] == "Test")]
    return {node.name: node for group in groups for node in group.body if isinstance(node, kinds)}


def is_skipped(function):
    """Tell whether a test never runs: skipped whatever the machine, or expected to fail."""
    marks = {ast.unparse(mark).partition("(")[0] for mark in function.decorator_list}
    return bool(marks & {"pytest.mark.skip", "pytest.mark.xfail"})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.where)
def test_a_bound_has_a_test_that_reaches_it(row):
    """Each row names a test that is there, is collected, and says in a sentence what it sees."""
    path, _, name = row.test.partition("::")
    found = functions_of(ROOT / path).get(name)
    assert found is not None, f"{row.test} is not there"
    assert ast.get_docstring(found), f"{row.test} says nothing"
    assert not is_skipped(found), f"{row.test} never runs"


def test_a_row_without_its_test_is_found():
    """A missing file, a missing or renamed test, a row without one: each fails the check."""
    assert functions_of(ROOT / "tests/unit/nothing/test_nothing.py") == {}
    assert "test_nothing" not in functions_of(Path(__file__))
    assert "read_rows" in functions_of(Path(__file__))
    whole = "| a | 1 | `a.b:C` | 413 | `tests/unit/test_a.py::test_b` |"
    assert ROW.fullmatch(whole)
    assert not ROW.fullmatch("| a | 1 | `a.b:C` | 413 |")
    assert not ROW.fullmatch(whole.replace("::test_b", "::b"))
    assert not ROW.fullmatch(whole.replace("`tests/unit/test_a.py::test_b`", ""))


def test_a_bound_stands_on_the_page_once():
    """No constant has two rows, and every process has a table."""
    wheres = [row.where for row in ROWS]
    assert len(wheres) == len(set(wheres))
    assert len({row.section for row in ROWS}) >= 11
