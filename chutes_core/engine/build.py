"""One image build on an engine's classic builder, its output streamed line by line, with limits.

Path: catalog/docker_builder -> `Build.run`. BuildKit is not reached through the SDK, and the
classic builder does what is needed here. The request is made on the SDK's own HTTP session because
`api.build` hides two things: the parameters that bound a build's processes (``cgroupparent``,
``ulimits``) and the response, which has to be cut off from another thread.

Invariant: a build ends within its limits of time, output and free disk; cutting it off closes the
connection, upon which the engine kills and removes the build's container; a build that failed
leaves no image of its own behind, and never touches one that has a name.
"""

import contextlib
import json
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import docker
import requests
import urllib3

from chutes_core.base.errors import (
    ChutesError,
    Exhausted,
    Invalid,
    TimedOut,
    Unavailable,
)
from chutes_core.engine.failures import explained, known_failure
from chutes_core.engine.stream import message_of, messages

Stream = Literal["stdout", "stderr"]
OnLine = Callable[[Stream, str], None]

LAST_LINES = 12
MAX_LINE = 2000
WATCH_S = 0.25
_PERIOD_US = 100_000
_MAX_PENDING = 64 * 1024
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"  # around standard error, by the classic builder
_NO_SPACE = (
    "the disk of the Docker engine is full (its operator: `docker system df`,"
    " `docker image prune -a`), or the command filled its /dev/shm of 64 MiB"
)
_LAYER = re.compile(r"^ ---> ([0-9a-f]{12,64})$")


class BuildCancelled(Exception):
    """The build was cut off because this process ends; it says nothing about the image."""


@dataclass(frozen=True)
class BuildLimits:
    """What one build may use."""

    time_s: float
    log_bytes: int
    log_lines: int
    memory_bytes: int
    cpus: float
    min_free_bytes: int
    cgroup_parent: str | None = None


@dataclass(frozen=True)
class BuildRequest:
    """One build: a tar file with everything in it, and the Dockerfile's name inside."""

    context: Path
    dockerfile: str
    network: str
    limits: BuildLimits
    labels: tuple[tuple[str, str], ...] = ()


class Build:
    """Runs once, in a thread; `cancel` may be called from any other.

    Args:
        client: the engine.
        request: what to build.
        on_line: gets each line of output as it comes.
        monotonic_s: measures the time limit.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        request: BuildRequest,
        on_line: OnLine,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._request = request
        self._on_line = on_line
        self._now_s = monotonic_s
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._pending = ""
        self._red = False
        self._lines = 0
        self._bytes = 0
        self._layer: str | None = None
        self._built: str | None = None
        self._stop: ChutesError | BuildCancelled | None = None
        self._wake = threading.Event()

    def cancel(self) -> None:
        """Cut the build off; `run` raises BuildCancelled."""
        self._give_up(BuildCancelled("the build was cancelled"))

    @property
    def last_lines(self) -> str:
        """Return the last lines of the output."""
        return "\n".join(self._last)

    def run(self) -> str:
        """Build and return the image's full id.

        Raises:
            Invalid: ``build_failed``, with the engine's word for it.
            TimedOut: ``build_too_slow``. Exhausted: ``build_log_too_long``.
            Unavailable: ``disk_full``, ``image_pull_failed``, ``engine_unreachable``, ….
            BuildCancelled: by `cancel`.
        """
        try:
            with explained("build an image"), self._request.context.open("rb") as file:
                self._stream(file)
            if self._stop is not None:
                raise self._stop
            if self._built is None:
                raise Invalid("build_failed", "the engine ended the build without an image")
            with explained("look at a built image"):
                return str(self._client.api.inspect_image(self._built)["Id"])
        except BaseException:
            self._discard()
            raise

    def _stream(self, file: Any) -> None:
        api, limits = self._client.api, self._request.limits
        params: dict[str, Any] = {
            "dockerfile": self._request.dockerfile,
            "rm": True,
            "forcerm": True,
            "networkmode": self._request.network,
            "memory": limits.memory_bytes,
            "memswap": limits.memory_bytes,
            "cpuperiod": _PERIOD_US,
            "cpuquota": int(limits.cpus * _PERIOD_US),
            "labels": json.dumps(dict(self._request.labels)),
            "ulimits": json.dumps([{"Name": "core", "Soft": 0, "Hard": 0}]),
        }
        if limits.cgroup_parent is not None:
            params["cgroupparent"] = limits.cgroup_parent
        response = api.post(
            f"{api.base_url}/v{api.api_version}/build",
            params=params,
            data=file,
            headers={"Content-Type": "application/x-tar"},
            stream=True,
            timeout=limits.time_s + 60,
        )
        watch = threading.Thread(target=self._watch, args=(response,), daemon=True)
        watch.start()
        try:
            if response.status_code != 200:
                raise _failure(message_of(response))
            for message in messages(response):
                self._take(message)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError):
            if self._stop is None:
                raise
        finally:
            self._wake.set()
            watch.join()
            response.close()

    def _take(self, message: dict[str, Any]) -> None:
        if "error" in message:
            self._write("\n")
            raise _failure(str(message["error"]), self.last_lines)
        if "aux" in message and "ID" in message["aux"]:
            self._built = str(message["aux"]["ID"])
        if "stream" in message:
            self._write(str(message["stream"]))
        elif "status" in message and "progressDetail" not in message:
            self._write(str(message["status"]) + "\n")

    def _write(self, text: str) -> None:
        """Take a piece of output; a program's writes may end in the middle of a line."""
        self._bytes += len(text)
        self._pending += text
        *lines, rest = self._pending.replace("\r\n", "\n").split("\n")
        self._pending = rest
        if len(rest) > _MAX_PENDING:
            lines, self._pending = [*lines, rest], ""
        for raw in lines:
            self._line(raw)
        self._bound_output()

    def _line(self, raw: str) -> None:
        self._red = _RED in raw or (self._red and _PLAIN not in raw)
        stream: Stream = "stderr" if self._red else "stdout"
        self._red = self._red and not raw.endswith(_PLAIN)
        line = _ANSI.sub("", raw).rpartition("\r")[2].rstrip()
        if not line:
            return
        self._lines += 1
        self._bound_output()
        self._note(line)
        self._on_line(stream, line[:MAX_LINE])

    def _note(self, line: str) -> None:
        """Remember the last lines, and the last layer, only to remove it after a failure.

        A build's own commands can print such a line too; the image that was built is therefore
        read from the engine's ``aux`` message alone.
        """
        layer = _LAYER.fullmatch(line)
        if layer is not None:
            self._layer = layer.group(1)
        self._last.append(line[:300])

    def _bound_output(self) -> None:
        limits = self._request.limits
        if self._bytes > limits.log_bytes or self._lines > limits.log_lines:
            error = Exhausted(
                "build_log_too_long",
                f"the build wrote more than {limits.log_lines} lines or {limits.log_bytes} bytes",
                hint="make its commands quieter, e.g. pip install -q",
            )
            self._give_up(error)
            raise error

    def _watch(self, response: requests.Response) -> None:
        """Cut the connection when the build is cancelled, late, or fills the disk."""
        limits = self._request.limits
        deadline_s = self._now_s() + limits.time_s
        root = _data_root(self._client)
        while not self._wake.wait(WATCH_S):
            if self._now_s() > deadline_s:
                text = f"the build took longer than {limits.time_s:.0f} s"
                self._give_up(TimedOut("build_too_slow", text, hint="split it, or build less"))
            elif root is not None and shutil.disk_usage(root).free < limits.min_free_bytes:
                text = "the disk of the Docker engine is nearly full"
                hint = "make the image smaller; the operator can free space"
                self._give_up(Unavailable("disk_full", text, hint=hint))
        if self._stop is not None:
            _cut(response)

    def _give_up(self, reason: ChutesError | BuildCancelled) -> None:
        if self._stop is None:
            self._stop = reason
        self._wake.set()

    def _discard(self) -> None:
        """Remove what a failed build has made; layers of an image with a name are its own."""
        api = self._client.api
        left = self._built or self._layer
        if left is None:
            return
        with contextlib.suppress(ChutesError), explained("remove what a build left"):
            found = api.inspect_image(left)
            if not found.get("RepoTags") and not found.get("RepoDigests"):
                api.remove_image(left)


def _failure(words: str, last_lines: str = "") -> ChutesError:
    known = known_failure(words, "build an image")
    if known is not None and known.code in ("disk_full", "image_pull_failed", "no_such_image"):
        return known
    # A command's own end says "code 1" alone, whatever it ran out of.
    hint = "mend what the last lines name"
    if "no space left on device" in last_lines.lower():
        hint = _NO_SPACE
    elif "non-zero code: 137" in words:
        hint = "the command was killed: it took more memory than a build may"
    return Invalid("build_failed", words.strip()[:600], hint=hint)


def _cut(response: requests.Response) -> None:
    # shutdown() is urllib3's way to end a read from another thread; the answer may be over already.
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
        response.raw.shutdown()


def _data_root(client: docker.DockerClient) -> Path | None:
    """Return the engine's directory where it lies on this host."""
    with contextlib.suppress(ChutesError), explained("read the engine's settings"):
        root = Path(str(client.api.info()["DockerRootDir"]))
        return root if root.is_dir() else None
    return None
