r"""What a RUN line of a Dockerfile may be: one command, on one line or on several.

Lines go on where the one before ends in a backslash; comments and empty lines may stand between
them; a here-document runs to its end word. Invariant: the text stays as it was written (the public
SDK's text), and no line of it is an instruction of its own.

>>> checked("pip install \\\n  numpy")
'pip install \\\n  numpy'
"""

import re

from chutes_core.base.errors import Invalid

_HERE_DOCUMENT = re.compile(r"(?<!<)<<-?\s*[\"']?([A-Za-z_][A-Za-z0-9_]*)[\"']?")


def checked(command: str) -> str:
    """Return the command's text, without line breaks before it.

    Raises:
        Invalid: ``empty_command`` or ``multiline_command``.
    """
    text = command.lstrip("\r\n")
    lines = text.rstrip().splitlines()
    if not lines or not lines[0].strip():
        raise Invalid(
            "empty_command", "run_command got an empty command", hint="give a shell command"
        )
    end = _end_of_command(lines)
    for word in _HERE_DOCUMENT.findall("\n".join(lines[:end])):
        end = _end_of_document(lines, end, word)
    if end != len(lines):
        raise _broken()
    return text


def has_here_document(command: str) -> bool:
    """Return whether a command of several lines has one; not every builder knows them."""
    return "\n" in command.strip() and _HERE_DOCUMENT.search(command) is not None


def _end_of_command(lines: list[str]) -> int:
    """Return how many lines the command itself has.

    Raises:
        Invalid: ``multiline_command``: it goes on, and nothing follows.
    """
    for index, line in enumerate(lines):
        between = index > 0 and (not line.strip() or line.lstrip().startswith("#"))
        if not between and not line.rstrip().endswith("\\"):
            return index + 1
    raise _broken()


def _end_of_document(lines: list[str], start: int, word: str) -> int:
    if start == len(lines):  # one line alone: the shell sees to it
        return start
    for index in range(start, len(lines)):
        if lines[index].strip("\t ") == word:
            return index + 1
    raise _broken()


def _broken() -> Invalid:
    return Invalid(
        "multiline_command",
        "a command of several lines needs a backslash at the end of all but the last",
        hint="or join the commands with &&, or call run_command once for each",
    )
