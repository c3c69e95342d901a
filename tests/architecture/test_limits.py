"""docs/limits.md is the code: every row's value is the constant's, and its test is there."""

import ast
import dataclasses
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "limits.md"
UNTESTED = "Bounds that no test reaches yet"
ROW = re.compile(
    r"\| (?P<what>[^|]+) \| (?P<value>[^|]+) \| `(?P<where>[\w.]+:[\w.]+)` \| (?P<then>[^|]+) \|"
    r"( `(?P<test>tests/[\w/.]+::\w+)` \|)?"
)


@dataclasses.dataclass(frozen=True)
class Row:
    section: str
    value: float
    where: str
    test: str | None


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


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.where)
def test_a_bound_has_a_test_that_reaches_it(row):
    """The test that the row names exists; rows without one stand under their own heading."""
    if row.section == UNTESTED:
        assert row.test is None
        return
    assert row.test is not None, "name a test, or move the row"
    path, _, name = row.test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_a_bound_stands_on_the_page_once():
    """No constant has two rows, and every process has a table."""
    wheres = [row.where for row in ROWS]
    assert len(wheres) == len(set(wheres))
    assert len({row.section for row in ROWS}) >= 11
