"""Image: the builder of a Dockerfile.

On the developer's path it is the first noun: `chutes build` sends ``image.dockerfile()`` and the
sources that ``add`` named. Invariant: every method appends instructions (``from_base`` replaces the
first), checks its arguments at once, and returns the image itself so that calls chain. ``str`` is
the text that the public SDK makes of the same calls (tests/unit/sdk/test_public_parity.py); what
is built is that text where no value breaks out of its instruction, and an error else.

Names and instructions follow shared/PUBLIC_API (Chute files).
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from typing_extensions import Self

from chutes_core.base import ids
from chutes_core.base.errors import Invalid
from chutes_core.sdk import commands

DEFAULT_BASE = "parachutes/python:3.12"

_PYTHON_VERSION = re.compile(r"^3\.\d{1,2}\.\d{1,2}$")
_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_PACKAGE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9+.:=~_*-]*$")
_CHECKSUM = re.compile(r"^sha(256|384|512):[a-f0-9]+$")
_OWNER = re.compile(r"^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$")
_MODE = re.compile(r"^0?[0-7]{3}$")
_ONE_LINE = "one call makes one line of the Dockerfile; run_command takes several lines"
_BUILD_TOOLS = (
    "build-essential zlib1g-dev libncurses5-dev libgdbm-dev libnss3-dev libssl-dev libreadline-dev "
    "libffi-dev libsqlite3-dev wget libbz2-dev libexpat1-dev liblzma-dev"
)
_CONFIGURE = (
    "--enable-optimizations --enable-shared --with-system-expat --with-ensurepip=install "
    "--prefix=/opt/python"
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
    """What ``add`` named of the build context: a file, a folder, or a pattern of them."""

    source: str
    dest: str
    exclude: tuple[str, ...] = ()


class Image:
    """The container image that a chute runs in, declared line by line.

    Args:
        username: the account that owns the image.
        name: name by ``ids.NAME_PATTERN``; capitals are made small, as in the image's id.
        tag: tag by the same pattern.
        readme: Markdown shown beside the image.

    Raises:
        Invalid: ``bad_image_name`` or ``bad_image_tag``.

    >>> image = Image("bob", "app", "1").from_base("python:3.12").run_command("pip install numpy")
    >>> print(image)
    FROM python:3.12
    RUN pip install numpy
    """

    def __init__(self, username: str, name: str, tag: str, readme: str = "") -> None:
        self.username = username
        self.name = _checked_name(name, "name")
        self.tag = _checked_name(tag, "tag")
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
    def uid(self) -> str:
        """Return ``image_id`` by its public name."""
        return self.image_id

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

    def with_python(self, version: str = "3.10.15") -> Self:
        """Build this exact CPython from source into /opt/python (for bases without one)."""
        if not _PYTHON_VERSION.match(version):
            raise Invalid(
                "bad_python_version",
                f"{version!r} is no full Python version",
                hint="write it with three numbers, e.g. 3.12.12",
            )
        short = version.rsplit(".", 1)[0]
        places = [one.text for one in self._instructions if one.keyword == "WORKDIR"]
        steps = (
            ("RUN", "apt-get update"),
            ("RUN", f"apt-get -y install {_BUILD_TOOLS}"),
            ("WORKDIR", "/usr/src"),
            ("RUN", f"wget https://www.python.org/ftp/python/{version}/Python-{version}.tgz"),
            ("RUN", f"tar -xzf Python-{version}.tgz"),
            ("WORKDIR", f"/usr/src/Python-{version}"),
            ("RUN", f"./configure {_CONFIGURE}"),
            ("RUN", "make -j"),
            ("RUN", "make altinstall"),
            ("WORKDIR", places[-1] if places else "/root"),
            ("RUN", f"ln -s /opt/python/bin/pip{short} /opt/python/bin/pip"),
            ("RUN", f"ln -s /opt/python/bin/python{short} /opt/python/bin/python"),
            ("RUN", "echo /opt/python/lib >> /etc/ld.so.conf && ldconfig"),
            ("RUN", "rm -rf /usr/src/Python*"),
        )
        for keyword, text in steps:
            self._append(keyword, text)
        return self

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
        """Install Debian packages: one name, names separated by spaces, or a list.

        A base without package lists needs ``run_command("apt-get update")`` before.
        """
        return self._append("RUN", f"apt-get -y install {' '.join(_packages(package))}")

    def apt_remove(self, package: str | Iterable[str]) -> Self:
        """Remove Debian packages."""
        return self._append("RUN", f"apt-get -y remove {' '.join(_packages(package))}")

    def with_env(self, key: str, value: str) -> Self:
        """Set a variable for what follows and for the chute; the value stands there as given.

        Docker's own rules hold: ``$NAME`` is replaced, a value with spaces needs quotes of its own.

        >>> str(Image("bob", "app", "1").with_env("PATH", "/opt/bin:$PATH").instructions[-1])
        'ENV PATH=/opt/bin:$PATH'
        """
        if not _ENV_NAME.match(key):
            raise Invalid(
                "bad_env_name",
                f"{key!r} is no name of an environment variable",
                hint="letters, digits and _, not beginning with a digit",
            )
        text = str(value)
        if _breaks(text) or text.endswith("\\"):
            raise Invalid("line_break", "value may not break its line", hint=_ONE_LINE)
        return self._append("ENV", f"{key}={text}")

    def run_command(self, command: str) -> Self:
        """Run a shell command while the image is built.

        A command of several lines needs a backslash at the end of all but the last.
        """
        return self._append("RUN", commands.not_empty(command))

    def add(
        self,
        source: str,
        dest: str,
        keep_git_dir: bool = False,
        checksum: str | None = None,
        chown: str | None = None,
        chmod: str | None = None,
        exclude: Iterable[str] | None = None,
        build_dir: str | None = None,
    ) -> Self:
        """Copy a file or folder beside the chute file, or what a URL names, into the image.

        Args:
            source: path relative to the folder in which ``chutes build`` runs, inside it, which
                may be a pattern (``src/**/*.py``); or a URL.
            dest: path in the image.
            keep_git_dir: of a git repository (a URL), keep ``.git``.
            checksum: of what a URL names, e.g. ``sha256:…``.
            chown: ``user`` or ``user:group``.
            chmod: octal mode, e.g. ``755``.
            exclude: patterns of paths that stay at home.
            build_dir: accepted for the public SDK's sake.
        """
        del build_dir
        remote = "://" in source
        parts = source.replace("\\", "/").split("/")
        if not remote and (source.startswith("/") or ".." in parts or not source):
            raise Invalid(
                "source_outside_context",
                f"{source!r} is not inside the build context",
                hint="give a path relative to the folder in which you build",
            )
        options = ""
        if remote and keep_git_dir:
            options += "--keep-git-dir=true "
        if remote and checksum is not None:
            options += f"--checksum={_matching(_CHECKSUM, checksum, 'checksum')} "
        if chown is not None:
            options += f"--chown={_matching(_OWNER, chown, 'chown')} "
        if chmod is not None:
            options += f"--chmod={_matching(_MODE, chmod, 'chmod')} "
        pair = [_one_line(source, "source"), _one_line(dest, "dest")]
        plain = not any(" " in part for part in pair)
        if not remote:
            self._added.append(Added(source, dest, tuple(exclude or ())))
        return self._append("ADD", options + (" ".join(pair) if plain else json.dumps(pair)))

    def with_entrypoint(self, *args: str | Iterable[str]) -> Self:
        """Set the entry point, as its words or as one list of them; it replaces an earlier one."""
        words = [word for one in args for word in ([one] if isinstance(one, str) else one)]
        if not words:
            raise Invalid(
                "empty_entrypoint",
                "with_entrypoint needs at least one word",
                hint='e.g. with_entrypoint("python", "-m", "app")',
            )
        kept = [one for one in self._instructions if one.keyword != "ENTRYPOINT"]
        self._instructions = kept
        return self._append("ENTRYPOINT", json.dumps(words))

    def dockerfile(self) -> str:
        """Return the Dockerfile as builders take it: what ``str`` gives, each command checked.

        Raises:
            Invalid: ``multiline_command`` or ``here_document``.
        """
        lines = (
            f"RUN {commands.checked(one.text)}" if one.keyword == "RUN" else str(one)
            for one in self._instructions
        )
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n".join(str(instruction) for instruction in self._instructions)

    def __repr__(self) -> str:
        return f"Image({self.full_name!r})"

    def _append(self, keyword: str, text: str) -> Self:
        self._instructions.append(Instruction(keyword, text))
        return self


def _checked_name(value: str, what: str) -> str:
    small = value.lower()
    if len(value) > 128 or not re.fullmatch(ids.NAME_PATTERN.strip("^$"), small):
        raise Invalid(
            f"bad_image_{what}",
            f"{value!r} cannot be the {what} of an image",
            hint="letters, digits, '-', '_' and '.', beginning with a letter or digit",
        )
    return small


def _breaks(text: str) -> bool:
    """Return whether anybody could read a text as more than one line."""
    return len(f"{text}.".splitlines()) > 1


def _one_line(value: str, what: str) -> str:
    text = str(value).strip()
    if not text and what != "value":
        raise Invalid("empty_argument", f"{what} is empty", hint="give it, or leave the call out")
    if _breaks(text):
        raise Invalid("line_break", f"{what} may not contain a line break", hint=_ONE_LINE)
    if text.endswith("\\") and what != "value":
        raise Invalid(
            "line_break", f"{what} may not end in a backslash, which joins lines", hint=_ONE_LINE
        )
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
        raise Invalid(
            "empty_argument", "no package is named", hint='e.g. apt_install(["git", "curl"])'
        )
    return names
