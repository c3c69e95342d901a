"""RUN lines: which commands of several lines are one command."""

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.sdk.commands import checked, has_here_document


@pytest.mark.parametrize(
    "command",
    [
        "pip install numpy",
        "pip install numpy\n",
        "a && \\\n  b && \\\n  c",
        "a && \\   \n  b",
        "a && \\\n# why\n\n  b",
        "cat <<EOF > /x\nhello\nEOF",
        "python - <<'PY'\nimport os\nPY\n",
        "cat <<A && cat <<B\n1\nA\n2\nB",
        "cat <<-EOF\n\thello\n\tEOF",
        "cat <<EOF",
        "tr a b <<< abc",
    ],
)
def test_one_command_stays_as_it_was_written(command):
    """Continued lines, comments between them and here-documents are one command, text unchanged."""
    assert checked(command) == command


@pytest.mark.parametrize(
    "command",
    [
        "a\nb",
        "a \\",
        "a \\\n# only a comment",
        "cat <<EOF\nhello",
        "cat <<EOF\nhello\nEOF\nUSER root",
        "tr a b <<< abc\nUSER root",
    ],
)
def test_a_line_of_its_own_is_refused(command):
    """No line can become an instruction of its own."""
    with pytest.raises(Invalid, match="multiline_command"):
        checked(command)


@pytest.mark.parametrize("command", ["", " \n ", "\n"])
def test_an_empty_command_is_refused(command):
    """There is nothing to run."""
    with pytest.raises(Invalid, match="empty_command"):
        checked(command)


def test_here_documents_are_told_apart():
    """A builder that knows none must be able to tell."""
    assert has_here_document("cat <<EOF\na\nEOF")
    assert not has_here_document("cat <<EOF")
    assert not has_here_document("a && \\\n b")
