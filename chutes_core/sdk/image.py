"""Image: the builder of a Dockerfile.

On the developer's path it is the first noun: `chutes build` sends ``str(image)`` and the sources
that ``add`` named. Invariant: every method appends exactly one instruction (``from_base`` replaces
the first), checks its arguments at once, and returns the image itself so that calls chain. No
value can break out of its line: newlines are refused.

Names and instructions follow shared/PUBLIC_API (Chute files).
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from typing_extensions import Self

from chutes_core.base import ids
from chutes_core.base.errors import Invalid

DEFAULT_BASE = "parachutes/python:3.12"

_PYTHON_VERSION = re.compile(r"^3\.\d{1,2}\.\d{1,2}$")
_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_PACKAGE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9+.:=~_-]*$")
_OWNER = re.compile(r"^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$")
_MODE = re.compile(r"^0?[0-7]{3}$")
_BUILD_TOOLS = (
    "build-essential ca-certificates curl libbz2-dev libffi-dev liblzma-dev libreadline-dev "
    "libsqlite3-dev libssl-dev zlib1g-dev"
)


@dataclass(frozen=True)
class Instruction:
    """One line of a Dockerfile: the keyword and the rest."""

    keyword: str
    text: str

    def __str__(self) -> str:
        return f"{self.keyword} {self.text}"


@dataclass(frozen=True)
class Added:
    """A file or folder of the build context, as ``add`` named it."""

    source: str
    dest: str


class Image:
    """The container image that a chute runs in, declared line by line.

    Args:
        username: the account that owns the image.
        name: lower-case name by ``ids.NAME_PATTERN``.
        tag: lower-case tag by the same pattern.
        readme: Markdown shown beside the image.

    Raises:
        Invalid: ``bad_image_name`` or ``bad_image_tag``.

    >>> image = Image("bob", "app", "1").from_base("python:3.12").run_command("pip install numpy")
    >>> print(image)
    FROM python:3.12
    RUN pip install numpy
    """

    def __init__(self, username: str, name: str, tag: str, readme: str = "") -> None:
        _check_name(name, "name")
        _check_name(tag, "tag")
        self.username = username
        self.name = name
        self.tag = tag
        self.readme = readme
        self._instructions = [Instruction("FROM", DEFAULT_BASE)]
        self._added: list[Added] = []

    @property
    def full_name(self) -> str:
        """Return user/name:tag."""
        return f"{self.username}/{self.name}:{self.tag}"

    @property
    def image_id(self) -> str:
        """Return the id that the API gives to an image of this name."""
        return ids.image_id(self.username, self.name, self.tag)

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """Return the Dockerfile's instructions in order."""
        return tuple(self._instructions)

    @property
    def added(self) -> tuple[Added, ...]:
        """Return what the build context must contain, in the order of ``add``."""
        return tuple(self._added)

    def from_base(self, base: str) -> Self:
        """Start from another image, e.g. ``python:3.12-slim``."""
        self._instructions[0] = Instruction("FROM", _one_line(base, "base"))
        return self

    def with_python(self, version: str = "3.12.12") -> Self:
        """Build this exact CPython from source and make it ``python`` (for bases without one)."""
        if not _PYTHON_VERSION.match(version):
            raise Invalid(
                "bad_python_version",
                f"{version!r} is no full Python version",
                hint="write it with three numbers, e.g. 3.12.12",
            )
        short = version.rsplit(".", 1)[0]
        archive = f"https://www.python.org/ftp/python/{version}/Python-{version}.tgz"
        return self._append(
            "RUN",
            f"apt-get update && apt-get install -y {_BUILD_TOOLS} && rm -rf /var/lib/apt/lists/*"
            f" && mkdir /tmp/python && curl -fsSL {archive} | tar -xz -C /tmp/python"
            " --strip-components=1 && cd /tmp/python && ./configure --with-ensurepip=install"
            " && make -j$(nproc) && make altinstall && rm -rf /tmp/python"
            f" && ln -sf /usr/local/bin/python{short} /usr/local/bin/python"
            f" && ln -sf /usr/local/bin/pip{short} /usr/local/bin/pip",
        )

    def with_maintainer(self, maintainer: str) -> Self:
        """Name the person who looks after the image."""
        return self._append("MAINTAINER", _one_line(maintainer, "maintainer"))

    def set_user(self, user: str) -> Self:
        """Run what follows, and the chute, as this user."""
        return self._append("USER", _one_line(user, "user"))

    def set_workdir(self, directory: str) -> Self:
        """Run what follows, and the chute, in this directory."""
        return self._append("WORKDIR", _one_line(directory, "directory"))

    def apt_install(self, package: str | Iterable[str]) -> Self:
        """Install Debian packages: one name, names separated by spaces, or a list."""
        names = " ".join(_packages(package))
        return self._append(
            "RUN", f"apt-get update && apt-get install -y {names} && rm -rf /var/lib/apt/lists/*"
        )

    def apt_remove(self, package: str | Iterable[str]) -> Self:
        """Remove Debian packages."""
        names = " ".join(_packages(package))
        return self._append("RUN", f"apt-get remove -y {names} && apt-get autoremove -y")

    def with_env(self, key: str, value: str) -> Self:
        r"""Set a variable for what follows and for the chute.

        >>> str(Image("bob", "app", "1").with_env("GREETING", 'say "hi"').instructions[-1])
        'ENV GREETING="say \\"hi\\""'
        """
        if not _ENV_NAME.match(key):
            raise Invalid("bad_env_name", f"{key!r} is no name of an environment variable")
        quoted = _one_line(value, "value").replace("\\", "\\\\").replace('"', '\\"')
        quoted = quoted.replace("$", "\\$")
        return self._append("ENV", f'{key}="{quoted}"')

    def run_command(self, command: str) -> Self:
        """Run a shell command while the image is built; lines may end with a backslash."""
        lines = [line.rstrip() for line in command.strip().splitlines()]
        if not lines or not lines[0]:
            raise Invalid("empty_command", "run_command got an empty command")
        if any(not line.endswith("\\") for line in lines[:-1]) or lines[-1].endswith("\\"):
            raise Invalid(
                "multiline_command",
                "a command of several lines needs a backslash at the end of all but the last",
                hint="or join the commands with &&, or call run_command once for each",
            )
        return self._append("RUN", "\n".join(lines))

    def add(
        self, source: str, dest: str, *, chown: str | None = None, chmod: str | None = None
    ) -> Self:
        """Copy a file or folder beside the chute file into the image.

        Args:
            source: path relative to the folder in which ``chutes build`` runs, inside it.
            dest: path in the image.
            chown: ``user`` or ``user:group``.
            chmod: octal mode, e.g. ``0755``.
        """
        parts = source.replace("\\", "/").split("/")
        if source.startswith("/") or ".." in parts or not source:
            raise Invalid(
                "source_outside_context",
                f"{source!r} is not inside the build context",
                hint="give a path relative to the folder in which you build",
            )
        options = ""
        if chown is not None:
            options += f"--chown={_matching(_OWNER, chown, 'chown')} "
        if chmod is not None:
            options += f"--chmod={_matching(_MODE, chmod, 'chmod')} "
        pair = [_one_line(source, "source"), _one_line(dest, "dest")]
        plain = not any(" " in part for part in pair)
        self._added.append(Added(source, dest))
        return self._append("ADD", options + (" ".join(pair) if plain else json.dumps(pair)))

    def with_entrypoint(self, *args: str) -> Self:
        """Set the entry point, as the list of its words."""
        if not args:
            raise Invalid("empty_entrypoint", "with_entrypoint needs at least one word")
        return self._append("ENTRYPOINT", json.dumps(list(args)))

    def __str__(self) -> str:
        return "\n".join(str(instruction) for instruction in self._instructions)

    def __repr__(self) -> str:
        return f"Image({self.full_name!r})"

    def _append(self, keyword: str, text: str) -> Self:
        self._instructions.append(Instruction(keyword, text))
        return self


def _check_name(value: str, what: str) -> None:
    if len(value) > 128 or not re.fullmatch(ids.NAME_PATTERN.strip("^$"), value):
        raise Invalid(
            f"bad_image_{what}",
            f"{value!r} cannot be the {what} of an image",
            hint="lower-case letters, digits, '-', '_' and '.', beginning with a letter or digit",
        )


def _one_line(value: str, what: str) -> str:
    text = str(value).strip()
    if not text and what != "value":
        raise Invalid("empty_argument", f"{what} is empty")
    if "\n" in text or "\r" in text:
        raise Invalid("line_break", f"{what} may not contain a line break")
    if text.endswith("\\") and what != "value":
        raise Invalid("line_break", f"{what} may not end in a backslash, which joins lines")
    return text


def _matching(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise Invalid(f"bad_{what}", f"{value!r} is no valid {what}")
    return value


def _packages(package: str | Iterable[str]) -> list[str]:
    names = package.split() if isinstance(package, str) else list(package)
    for name in names:
        _matching(_PACKAGE, name, "package")
    if not names:
        raise Invalid("empty_argument", "no package is named")
    return names
