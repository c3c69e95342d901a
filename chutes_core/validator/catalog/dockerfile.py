r"""What a Dockerfile may say before the validator's engine reads it.

Path: upload -> `check_dockerfile` -> bundle -> docker_builder. A build's commands run inside
containers on a guarded network; three instructions do not, because the engine itself carries them
out, on its host's network or in a later build: ADD of an address, ONBUILD, and FROM of a registry
that is the host or its private neighbour. They are refused here. Invariant: instructions are told
apart as the classic builder does it: comments dropped, continued lines joined (a backslash, with
blanks after it), keywords in any case.

>>> bases("FROM python:3.12 AS build\\nRUN make\\nFROM build\\nCOPY --from=build /x /x")
('python:3.12',)
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from chutes_core.base.errors import Invalid, TooLarge
from chutes_core.engine.registry_names import is_public_name

MAX_DOCKERFILE_BYTES = 64 * 1024
_CONTINUED = re.compile(r"\\[ \t]*$")
_ESCAPE = re.compile(r"^#\s*escape\s*=\s*(\S+)", re.IGNORECASE)
_FLAG = re.compile(r"^--[a-z]+=\S*$")
_RUN_FLAG = re.compile(r"^--[a-z]+(=\S*)?", re.IGNORECASE)
_FRONTEND = re.compile(r"^#\s*syntax\s*=\s*(\S+)", re.IGNORECASE)
_PLAIN_FRONTEND = re.compile(r"^(docker\.io/)?docker/dockerfile(:1(\.\d+)*)?$")
_UNPLAIN = re.compile(r"[$\\'\":]|^git@")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword in upper case and the rest of its logical line."""

    keyword: str
    rest: str


def check_dockerfile(text: str) -> None:
    """Check that a Dockerfile is small, begins with a stage and stays inside its containers.

    Raises:
        TooLarge: ``dockerfile_too_large``.
        Invalid: ``no_from``, ``remote_add``, ``onbuild_refused``, ``registry_refused``,
            ``buildkit_only``, ``frontend_refused``, ``bad_dockerfile``.
    """
    if len(text.encode()) > MAX_DOCKERFILE_BYTES:
        raise TooLarge("dockerfile_too_large", f"over {MAX_DOCKERFILE_BYTES} bytes")
    found = list(instructions(text))
    stages = [one for one in found if one.keyword != "ARG"]
    if not stages or stages[0].keyword != "FROM" or not stages[0].rest:
        raise Invalid("no_from", "the Dockerfile does not begin with FROM", hint="Image.from_base")
    for one in found:
        if one.keyword == "ONBUILD":
            raise Invalid("onbuild_refused", "ONBUILD has no use here", hint="remove the line")
        if one.keyword == "RUN":
            _check_run(one.rest)
        if one.keyword == "ADD":
            _check_add(one.rest)
        if one.keyword == "FROM":
            _check_from(one.rest)
        if one.keyword == "COPY":
            _check_copy(one.rest)


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile.

    Raises:
        Invalid: ``bad_dockerfile``: another escape character than the backslash;
            ``frontend_refused``: another language than the classic builder's.
    """
    pending = ""
    for raw in text.splitlines():
        line = raw.strip()
        escape = _ESCAPE.match(line)
        if escape is not None and escape.group(1) != "\\":
            raise Invalid("bad_dockerfile", "the escape character must be the backslash")
        frontend = _FRONTEND.match(line)
        if frontend is not None and not _PLAIN_FRONTEND.match(frontend.group(1)):
            raise Invalid(
                "frontend_refused",
                f"the frontend {frontend.group(1)[:100]} would read this file in its own way",
                hint="remove the syntax line",
            )
        if line.startswith("#") or (pending and not line):
            continue
        if _CONTINUED.search(line):
            pending += _CONTINUED.sub("", line) + " "
            continue
        yield from _instruction(pending + line)
        pending = ""
    yield from _instruction(pending)


def bases(text: str) -> tuple[str, ...]:
    """Return the images that the stages start from, without earlier stages and ``scratch``."""
    names: set[str] = set()
    found: list[str] = []
    for one in instructions(text):
        words = _operands(one.rest) if one.keyword == "FROM" else []
        if words and words[0].lower() not in names and words[0] != "scratch":
            found.append(words[0])
        if len(words) == 3 and words[1].upper() == "AS":
            names.add(words[2].lower())
    return tuple(dict.fromkeys(found))


def _instruction(line: str) -> Iterator[Instruction]:
    words = line.strip().split(None, 1)
    if words:
        yield Instruction(words[0].upper(), words[1].strip() if len(words) > 1 else "")


def _operands(rest: str) -> list[str]:
    words = rest.split()
    while words and _FLAG.match(words[0]):
        words.pop(0)
    return words


def _check_add(rest: str) -> None:
    words = _operands(rest)
    if words and words[0].startswith("["):
        try:
            words = [str(part) for part in json.loads(" ".join(words))]
        except ValueError as error:
            raise Invalid("bad_dockerfile", f"ADD {rest[:100]!r} cannot be read") from error
    for source in words[:-1]:
        if _UNPLAIN.search(source):
            raise Invalid(
                "remote_add",
                f"ADD may only copy plain paths of the build context, not {source[:200]!r}",
                hint="download in a RUN, or put the file into the context",
            )


def _check_run(rest: str) -> None:
    """A flag of RUN asks BuildKit for another network, for rights, or for parts of its host."""
    flag = _RUN_FLAG.match(rest)
    if flag is not None:
        raise Invalid(
            "buildkit_only",
            f"RUN {flag.group(0)[:60]} is BuildKit's, and builds here have none",
            hint="remove the flag; what a build needs comes from its context or its network",
        )


def _check_from(rest: str) -> None:
    words = _operands(rest)
    if not words or "$" in rest or "\\" in rest:
        raise Invalid(
            "bad_dockerfile", f"FROM {rest[:100]!r}: write the base image's name without variables"
        )
    _check_registry(words[0])


def _check_copy(rest: str) -> None:
    """COPY --from may name an image, which the engine would pull."""
    for word in rest.split():
        if word.lower().startswith("--from="):
            if "$" in word or "\\" in word:
                raise Invalid("bad_dockerfile", "COPY --from: write the name without variables")
            _check_registry(word.partition("=")[2])


def _check_registry(image: str) -> None:
    registry, slash, _ = image.partition("/")
    host = registry.rpartition(":")[0] or registry
    if slash and _is_host(registry) and not is_public_name(host):
        raise Invalid(
            "registry_refused",
            f"the registry {registry[:100]} is not a public one",
            hint="push the base image to a public registry",
        )


def _is_host(first: str) -> bool:
    """Tell whether an engine takes the first part of a name for a registry's host.

    Source: splitDockerDomain of github.com/distribution/reference.
    """
    return first == "localhost" or first != first.lower() or "." in first or ":" in first
