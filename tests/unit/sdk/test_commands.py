"""RUN lines: which commands of several lines are one command."""

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.sdk.commands import checked
from chutes_core.sdk.image import Image


@pytest.mark.parametrize(
    "command",
    [
        "pip install numpy",
        "a && \\\n  b && \\\n  c",
        "a && \\   \n  b",
        "a && \\\n# why\n\n  b",
        "cat <<EOF",
        "tr a b <<< abc",
    ],
)
def test_one_command_stays_as_it_was_written(command):
    """Continued lines and comments between them are one command, text unchanged."""
    assert checked(command) == command


def test_line_breaks_around_a_command_go():
    """A text in triple quotes begins and ends with one; Docker would take none of both."""
    assert checked("\n    a && \\\n    b\n") == "    a && \\\n    b"


@pytest.mark.parametrize(
    "command", ["a\nb", "a \\", "a \\\n# only a comment", "tr a b <<< abc\nUSER root", "a\rb"]
)
def test_a_line_of_its_own_is_refused(command):
    """No line can become an instruction of its own."""
    with pytest.raises(Invalid, match="multiline_command"):
        checked(command)


@pytest.mark.parametrize("command", ["cat <<EOF > /x\nhello\nEOF", "python - <<'PY'\nprint()\nPY"])
def test_here_documents_are_told_by_name(command):
    """What BuildKit would take and our builders do not has an error of its own."""
    with pytest.raises(Invalid, match="here_document"):
        checked(command)


@pytest.mark.parametrize("command", ["", " \n ", "\n"])
def test_an_empty_command_is_refused(command):
    """There is nothing to run, and the chute file says so at its line."""
    with pytest.raises(Invalid, match="empty_command"):
        Image("bob", "app", "1").run_command(command)


def test_what_cannot_be_built_can_be_inspected():
    """The text is the public SDK's, whatever it is; only a build refuses."""
    image = Image("bob", "app", "1").run_command("a\nb")
    assert str(image) == "FROM parachutes/python:3.12\nRUN a\nb"
    with pytest.raises(Invalid, match="multiline_command"):
        image.dockerfile()
