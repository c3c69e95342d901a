r"""What a RUN line of a Dockerfile may be: one command, on one line or on several.

Lines go on where the one before ends in a backslash; comments and empty lines may stand between
them. Invariant: no line of a checked command is an instruction of its own, and apart from line
breaks before and after it the text stays as it was written.

>>> checked("\npip install \\\n  numpy\n")
'pip install \\\n  numpy'
"""

import re

from chutes_core.base.errors import Invalid

_HERE_DOCUMENT = re.compile(r"(?<!<)<<-?\s*[\"']?([A-Za-z_][A-Za-z0-9_]*)[\"']?")


def not_empty(command: str) -> str:
    """Return a command as it is.

    Raises:
        Invalid: ``empty_command``.
    """
    if not command.strip():
        raise Invalid(
            "empty_command", "run_command got an empty command", hint="give a shell command"
        )
    return command


def checked(command: str) -> str:
    """Return a command's text as a builder takes it, without line breaks around it.

    Raises:
        Invalid: ``empty_command``, ``multiline_command`` or ``here_document``.
    """
    text = not_empty(command).lstrip("\r\n").rstrip("\r\n")
    lines = text.rstrip().splitlines()
    if _end_of_command(lines) == len(lines):
        return text
    if _HERE_DOCUMENT.search(text):
        raise Invalid(
            "here_document",
            "the builder knows no here-documents (<<EOF)",
            hint="join the lines with && and backslashes, or add a script and run it",
        )
    raise _broken()


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


def _broken() -> Invalid:
    return Invalid(
        "multiline_command",
        "a command of several lines needs a backslash at the end of all but the last",
        hint="or join the commands with &&, or call run_command once for each",
    )
