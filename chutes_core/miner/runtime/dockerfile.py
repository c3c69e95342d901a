"""The part of a Dockerfile that the process runtime can follow: its `RUN pip install` lines.

Pure. Everything else (base image, apt, COPY, ENV) needs a container and is reported as skipped.
Invariant: no line is handed to a shell; an argument that would need one (`$`, backquote, a
redirection) makes its command a skipped one.
"""

import json
import re
import shlex
from dataclasses import dataclass

_PIP = re.compile(r"^pip3?(\.\d+)?$")
_PYTHON = re.compile(r"^python(3(\.\d+)?)?$")
_NEEDS_SHELL = re.compile(r"[$`<>|]\s*$|[$`]|^[0-9]?>")


@dataclass(frozen=True)
class PipLines:
    """Arguments after `pip install` of each command in order, and the commands left out."""

    installs: tuple[tuple[str, ...], ...]
    skipped: tuple[str, ...]


def pip_lines(dockerfile: str) -> PipLines:
    r"""Read a Dockerfile.

    >>> pip_lines("FROM x\nRUN pip install -q 'numpy>=2' && apt-get update").installs
    (('-q', 'numpy>=2'),)
    """
    installs: list[tuple[str, ...]] = []
    skipped: list[str] = []
    for line in _logical_lines(dockerfile):
        instruction, _, rest = line.partition(" ")
        if instruction.upper() != "RUN":
            skipped.append(line)
            continue
        for command in _commands(rest.strip()):
            arguments = _pip_install(command)
            if arguments is None:
                skipped.append("RUN " + " ".join(command))
            else:
                installs.append(arguments)
    return PipLines(tuple(installs), tuple(skipped))


def _logical_lines(dockerfile: str) -> list[str]:
    lines: list[str] = []
    pending = ""
    for raw in dockerfile.splitlines():
        text = raw.strip()
        if text.startswith("#"):
            continue
        if text.endswith("\\"):
            pending += text[:-1] + " "
            continue
        joined = (pending + text).strip()
        pending = ""
        if joined:
            lines.append(joined)
    return [*lines, pending.strip()] if pending.strip() else lines


def _commands(text: str) -> list[list[str]]:
    """Split the rest of a RUN line at `&&`, `;` and `||`; the JSON form is one command."""
    if text.startswith("["):
        try:
            return [[str(part) for part in json.loads(text)]]
        except ValueError:
            return [[text]]
    lexer = shlex.shlex(text, posix=True, punctuation_chars="&;|")
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    try:
        for token in lexer:
            if token and set(token) <= set("&;|"):
                commands.append([])
            else:
                commands[-1].append(token)
    except ValueError:
        return [[text]]
    return [command for command in commands if command]


def _pip_install(command: list[str]) -> tuple[str, ...] | None:
    words = command
    if len(words) > 2 and _PYTHON.match(words[0]) and words[1] == "-m":
        words = words[2:]
    if len(words) < 3 or not _PIP.match(words[0]) or words[1] != "install":
        return None
    if any(_NEEDS_SHELL.search(word) for word in words[2:]):
        return None
    return tuple(words[2:])
