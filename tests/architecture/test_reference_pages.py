"""docs/sdk.md, docs/cli.md and docs/errors.md are written from the code, and were."""

import re

import pytest

from scripts.error_codes import HERE, error_codes
from scripts.write_reference import DOCS, PAGES, errors_page


@pytest.mark.parametrize("name", ["sdk.md", "cli.md"])
def test_a_reference_page_is_up_to_date(name):
    """`python scripts/write_reference.py` has been run since the last change of SDK or command."""
    assert (DOCS / name).read_text() == PAGES[name]()


def test_the_page_of_errors_knows_what_a_developer_meets_here():
    """Every code of SDK and command is on the page; those of the servers are as of its writing."""
    shown = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE))
    assert {one.code for one in error_codes(HERE)} <= shown
    assert len(shown) > 150


def test_every_error_of_sdk_and_command_says_what_to_do():
    """Each code has a hint at one of its raises at least, or in base/hints."""
    assert [one.code for one in error_codes(HERE) if not one.hint] == []


def test_a_line_of_the_page_has_four_cells():
    """A bar in a message does not break the table."""
    rows = [line for line in errors_page().splitlines() if line.startswith("| `")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
