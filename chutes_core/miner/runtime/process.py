"""The process runtime: an instance is a process of this host in its image's venv. Devnet only.

It isolates little: own session, clean environment, own home and temporary folder, a few resource
limits. The code that it runs sees this user's files. app.py therefore refuses it on any chain that
is not a devnet. Invariant: every instance has a directory `instances/<launch id>` whose `pid.json`
(written by the shim) identifies its process group by pid and start time, so that no foreign
process with a reused pid is ever signalled.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from loguru import logger

import chutes_core
from chutes_core.base.errors import ProtocolError
from chutes_core.miner.runtime import pids, shim
from chutes_core.miner.runtime.base import (
    Ended,
    ImageBundle,
    InstanceSpec,
    PreparedImage,
    Ready,
    RuntimeFailed,
    StandBy,
    cache_environment,
)
from chutes_core.miner.runtime.venvs import Venvs
from chutes_core.miner.runtime.waiting import Pool
from chutes_core.wire.control import ImageRef, RuntimeName
from chutes_core.wire.system import NO_IMAGE_SHA256

RUNNER_COMMAND = ("-m", "chutes_core.runner")
_CHECKOUT = str(Path(chutes_core.__file__).resolve().parent.parent)
_DRIVER_VARIABLES = ("LD_LIBRARY_PATH",)  # where some hosts keep the GPU driver's libraries
_POLL_S = 0.05
_READY_POLL_S = 0.01  # a caller may be waiting, and a look costs some 20 us
_KILL_WAIT_S = 5.0
_SHIM_START_S = 2.0
_STAND_BY_GRACE_S = 2.0


class ProcessRuntime:
    """Instances as processes; see `chutes_core.miner.runtime.base.Runtime`."""

    def __init__(
        self,
        data_dir: Path,
        *,
        environ: Mapping[str, str],
        command: tuple[str, ...] = RUNNER_COMMAND,
    ) -> None:
        self._venvs = Venvs(data_dir / "images", environ)
        self._directory = data_dir / "instances"
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._environ = environ
        self._command = command
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._pool = Pool(self)

    @property
    def name(self) -> RuntimeName:
        """Return the runtime's name on the wire."""
        return "process"

    async def refresh(self) -> None:
        """Do nothing: what is asked is looked up when it is asked."""

    async def known(self, image: ImageRef) -> PreparedImage | None:
        """Return the system chute's image, which is this very software; others are prepared.

        For those None: a bundle is small, and `prepare` knows what is prepared.
        """
        if image.sha256 != NO_IMAGE_SHA256:
            return None
        return PreparedImage(image.image_id, image.sha256)

    def host(self, launch_id: str) -> str:
        """Return the loopback address."""
        return "127.0.0.1"

    async def settle(self, launch_id: str) -> None:
        """Do nothing: processes have this host's network throughout."""

    def warm_images(self) -> frozenset[str]:
        """Return ids of images whose venv exists."""
        return self._venvs.prepared()

    async def prepare(self, bundle: ImageBundle) -> PreparedImage:
        """Make the image's venv."""
        return await self._venvs.prepare(bundle)

    async def pull(self, image: ImageRef) -> PreparedImage:
        """Refuse: there is no engine."""
        raise ProtocolError("bad_image_ref", "the process runtime pulls from no registry")

    async def start(self, spec: InstanceSpec) -> None:
        """Start the runner under its shim, or take one that stands by."""
        if spec.cache is not None:  # a variable is all that leads there: any stand-by can be told
            environment = {**spec.runner_env, **cache_environment(str(spec.cache))}
            spec = dataclasses.replace(spec, cache=None, runner_env=environment)
        if await self._pool.take(spec):
            return
        self._spawn(spec.launch_id, spec.image, spec.runner_env)
        logger.bind(launch_id=spec.launch_id).info("instance was started")

    async def stand_by(self, wanted: Sequence[StandBy]) -> tuple[StandBy, ...]:
        """Hold runners ready."""
        return await self._pool.hold(wanted)

    async def put_up(self, place: str, stand_by: StandBy) -> None:
        """Start a runner that waits on its stdin."""
        self._spawn(place, stand_by.image, stand_by.runner_env, waits=True)

    async def hand_over(self, place: str, launch_id: str, runner_env: Mapping[str, str]) -> None:
        """Give a runner that waits the launch's name and environment."""
        home, child = self._home(launch_id), self._children[place]
        shutil.rmtree(home, ignore_errors=True)
        self._home(place).rename(home)
        self._children[launch_id] = self._children.pop(place)
        assert child.stdin is not None
        order = {**self._own_env(home), **runner_env}
        with child.stdin:
            child.stdin.write(json.dumps(order).encode() + b"\n")

    def is_up(self, place: str) -> bool:
        """Tell whether a runner still waits."""
        return self.ended(place) is None

    async def take_down(self, name: str) -> None:
        """End a runner that waits."""
        child = self._children.get(name)
        if child is not None and child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
        await self.stop(name, _STAND_BY_GRACE_S)
        self.forget(name)

    def _spawn(
        self,
        name: str,
        image: PreparedImage,
        runner_env: Mapping[str, str],
        *,
        waits: bool = False,
    ) -> None:
        home = self._home(name)
        shutil.rmtree(home, ignore_errors=True)
        for folder in (home, home / "home", home / "tmp"):
            folder.mkdir(parents=True, mode=0o700)
        python, own = self._interpreter(image)
        order = {
            "command": [str(python), *self._command],
            "env": {**self._clean_env(home, python, runner_env), **own},
            "cwd": str(home / "home"),
            "stand_by": waits,
        }
        (home / "command.json").write_text(json.dumps(order))
        try:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-I", "-S", shim.__file__, str(home)],
                stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                start_new_session=True,
            )
        except OSError as error:
            raise RuntimeFailed("start_failed", f"no process could be started: {error}") from error

    async def wait_ready(self, launch_id: str, timeout_s: float) -> Ready:
        """Return the port and key of the ready file."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while loop.time() < deadline:
            ready = self._read(launch_id, "ready.json")
            if ready is not None:
                return _ready(ready)
            ended = self.ended(launch_id)
            if ended is not None:
                raise RuntimeFailed(
                    "instance_ended", f"the instance ended with {ended.exit_code} before listening"
                )
            await asyncio.sleep(_READY_POLL_S)
        raise RuntimeFailed("listen_timeout", f"the instance did not listen in {timeout_s:.0f} s")

    def ended(self, launch_id: str) -> Ended | None:
        """Return how an instance ended, or None while it runs."""
        child = self._children.get(launch_id)
        running = child.poll() is None if child is not None else self._pid(launch_id) is not None
        if running:
            return None
        exit_record = self._read(launch_id, "exit.json")
        code = exit_record.get("exit_code") if exit_record else None
        return Ended(code if isinstance(code, int) else None)

    def instances(self) -> tuple[str, ...]:
        """Return the launch ids that have a directory here."""
        names = {path.name for path in self._directory.iterdir() if path.is_dir()}
        return tuple(sorted(names - self._pool.held.keys()))

    def log_tail(self, launch_id: str, max_chars: int) -> str:
        """Return the last characters of the instance's output."""
        text = ""
        for name in ("log.1.txt", "log.txt"):
            text += _tail(self._home(launch_id) / name, max_chars)
        return text[-max_chars:]

    async def stop(self, launch_id: str, grace_s: float) -> None:
        """Ask with SIGTERM, wait, then kill the whole process group."""
        await self._shim_begun(launch_id)
        if self.ended(launch_id) is not None:
            return
        pid = self._pid(launch_id)
        if pid is not None:
            pids.send(pid, signal.SIGTERM)
            if await self._gone(launch_id, grace_s):
                return
            logger.bind(launch_id=launch_id).warning("instance was killed after its grace time")
            pids.send_to_group(pid, signal.SIGKILL)
        elif launch_id in self._children:  # the shim has not said its pid yet
            pids.send_to_group(self._children[launch_id].pid, signal.SIGKILL)
        await self._gone(launch_id, _KILL_WAIT_S)

    def forget(self, launch_id: str) -> None:
        """Remove the directory of an ended instance."""
        child = self._children.pop(launch_id, None)
        if child is not None:
            child.poll()
        shutil.rmtree(self._home(launch_id), ignore_errors=True)

    async def _shim_begun(self, launch_id: str) -> None:
        """Wait for the pid of a shim that a former miner started in its last moment."""
        home, loop = self._home(launch_id), asyncio.get_running_loop()
        deadline = loop.time() + _SHIM_START_S
        while launch_id not in self._children and loop.time() < deadline:
            if (home / "pid.json").exists() or not (home / "command.json").exists():
                return
            await asyncio.sleep(_POLL_S)

    async def _gone(self, launch_id: str, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.ended(launch_id) is None:
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def _interpreter(self, image: PreparedImage) -> tuple[Path, dict[str, str]]:
        """Return an image's interpreter, and what else it needs to find this software."""
        if image.sha256 != NO_IMAGE_SHA256:
            return self._venvs.python(image.sha256), {}
        paths = os.pathsep.join([_CHECKOUT, *filter(None, sys.path)])
        return Path(sys.executable), {"PYTHONPATH": paths}

    def _clean_env(self, home: Path, python: Path, extra: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": self._environ.get("LANG", "C.UTF-8"),
            "PYTHONUNBUFFERED": "1",
            **{name: self._environ[name] for name in _DRIVER_VARIABLES if name in self._environ},
            **extra,
            **self._own_env(home),
        }

    def _own_env(self, home: Path) -> dict[str, str]:
        return {
            "HOME": str(home / "home"),
            "TMPDIR": str(home / "tmp"),
            "CHUTES_RUNNER_READY_FILE": str(home / "ready.json"),
        }

    def _home(self, launch_id: str) -> Path:
        return self._directory / launch_id

    def _pid(self, launch_id: str) -> int | None:
        """Return the shim's pid while that very process lives."""
        record = self._read(launch_id, "pid.json")
        if record is None:
            return None
        pid, started = record.get("pid"), record.get("started")
        if not isinstance(pid, int) or pids.started(pid) != started:
            return None
        return pid

    def _read(self, launch_id: str, name: str) -> dict[str, object] | None:
        try:
            value = json.loads((self._home(launch_id) / name).read_text())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None


def _ready(record: dict[str, object]) -> Ready:
    port, key = record.get("port"), record.get("public_key")
    if not isinstance(port, int) or not isinstance(key, str):
        raise RuntimeFailed("start_failed", "the instance wrote a ready line that is none")
    return Ready(port, key)


def _tail(path: Path, max_chars: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4 * max_chars))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
