"""A Docker engine of a test's own, which may be killed, or be given a disk that is nearly full.

It lives in a network namespace of its own: a second dockerd beside another one would rewrite its
firewall chains. `entered` takes the calling thread, and all that it starts, into that namespace.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from chutes_core.engine.connect import connect
from scripts.runtimes import BASE_IMAGE

START_TIMEOUT_S = 180
_ROOMY = 2 << 30
_LISTENS = "API listen on"  # dockerd, once it answers
_CLONE_NEWNET = 0x40000000  # linux/sched.h


class OwnEngine:
    """A dockerd that may be killed; its network namespace and its data outlive it.

    Args:
        options: further words for dockerd.
        disk_bytes: size of a file system of its own for its data, or the test is skipped; None:
            a file system in memory where one can be had, for speed.
    """

    def __init__(self, *options, disk_bytes=None):
        self._options = options
        self.restores = "--live-restore" in options
        self.folder = Path(tempfile.mkdtemp(prefix="chutes-own.", dir="/tmp"))
        self.host = f"unix://{self.folder}/d.sock"
        self._space = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", "ip link set lo up && echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._space.stdout.readline() == "up\n"
        self._daemon = None
        failed = self._mount(disk_bytes or _ROOMY)
        if failed and disk_bytes:
            self.remove()
            pytest.skip(f"no file system of an engine's own can be mounted: {failed}")

    @property
    def data(self):
        """Return the folder of its data."""
        return self.folder / "data"

    def start(self):
        """Start dockerd and wait until it answers."""
        words = [*self.nsenter(), "dockerd"]
        places = ["--data-root", "data", "--exec-root", "exec", "--pidfile", "pid"]
        paths = [str(self.folder / one) if not one.startswith("--") else one for one in places]
        before = self._log().count(_LISTENS)
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [*words, *paths, "--host", self.host, *self._options], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._log().count(_LISTENS) == before:
            assert self._daemon.poll() is None, self._log()[-2000:]
            assert time.monotonic() < deadline, self._log()[-2000:]
            time.sleep(0.1)
        return connect(self.host)

    def nsenter(self):
        """Return the words that run a command in its network namespace."""
        return ["nsenter", "--target", str(self._space.pid), "--net"]

    @contextlib.contextmanager
    def entered(self):
        """Take this thread into its network namespace, with all that it starts meanwhile."""
        with open("/proc/thread-self/ns/net") as back:
            _set_namespace(f"/proc/{self._space.pid}/ns/net")
            try:
                yield
            finally:
                assert ctypes.CDLL(None).setns(back.fileno(), _CLONE_NEWNET) == 0

    def take_base(self):
        """Bring the base image over from the session's engine."""
        client, other = connect(self.host), connect(None)
        client.api.load_image(other.api.get_image(BASE_IMAGE))
        other.close()
        client.close()

    def kill(self):
        """SIGKILL to dockerd alone, as a crash: its containers and helpers live on."""
        self._daemon.kill()
        self._daemon.wait()
        # The kernel ends dockerd's containerd with it. Where this host's init leaves the dead
        # unburied, the next dockerd would take that one for alive.
        note = self.folder / "exec" / "containerd" / "containerd.pid"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_dead(int(note.read_text())):
            assert time.monotonic() < deadline, "containerd lives on"
            time.sleep(0.05)
        note.unlink()

    def remove(self):
        """End dockerd with all that it started, and remove its folder."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.terminate()
            self._daemon.wait(START_TIMEOUT_S)
        for pid in processes(str(self.folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._space.communicate()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mounted in sorted(mounts, reverse=True):
            if mounted.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", mounted], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _mount(self, disk_bytes):
        self.data.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", str(self.data)]
        return subprocess.run(words, capture_output=True, text=True, check=False).stderr

    def _log(self):
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""


def processes(text):
    """Return pids of processes that were started with a text among their arguments."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in words:
                found.append(int(folder.name))
    return found


def _set_namespace(path):
    with open(path) as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _is_dead(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
