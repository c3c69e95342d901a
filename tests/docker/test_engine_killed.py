"""kill -9 of dockerd under a running instance: reported, taken back, nothing orphaned.

The engine is the test's own, in a network namespace of its own: a second dockerd beside another
one would rewrite its firewall chains.
"""

import asyncio
import contextlib
import gc
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from loguru import logger

from chutes_core.base.errors import ChutesError
from chutes_core.engine.connect import connect
from chutes_core.engine.networks import ensure_networks
from chutes_core.engine.run import PYTHON_LABEL
from chutes_core.miner.runtime.base import InstanceSpec, PreparedImage
from chutes_core.miner.runtime.docker import DockerRuntime, InstanceLimits
from scripts.runtimes import BASE_IMAGE, ensure_base_image

MIB = 1 << 20
START_TIMEOUT_S = 40
_LISTENS = "API listen on"  # dockerd, once it answers
pytestmark = [
    pytest.mark.timeout(240),
    # The SDK forgets a socket whose connection is refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="no dockerd is installed here"),
]


class OwnEngine:
    """A dockerd that may be killed; its network namespace and its data outlive it."""

    def __init__(self, *options):
        self._options = options
        self.restores = "--live-restore" in options
        self.folder = Path(tempfile.mkdtemp(prefix="chutes-killed.", dir="/tmp"))
        self.host = f"unix://{self.folder}/d.sock"
        self._space = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", "ip link set lo up && echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._space.stdout.readline() == "up\n"
        self._daemon = None

    def start(self):
        """Start dockerd and wait until it answers."""
        words = ["nsenter", "--target", str(self._space.pid), "--net", "dockerd"]
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

    def kill(self):
        """SIGKILL to dockerd alone, as a crash: its containers and helpers live on."""
        self._daemon.kill()
        self._daemon.wait()
        # The kernel ends dockerd's containerd with it. Where this host's init leaves the dead
        # unburied, the next dockerd would take that one for alive.
        note = self.folder / "exec" / "containerd" / "containerd.pid"
        deadline = time.monotonic() + 10
        while not _is_dead(int(note.read_text())):
            assert time.monotonic() < deadline, "containerd lives on"
            time.sleep(0.05)
        note.unlink()

    def remove(self):
        """End dockerd with all that it started, and remove its folder."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.terminate()
            self._daemon.wait(60)
        for pid in _processes(str(self.folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._space.communicate()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mounted in sorted(mounts, reverse=True):
            if mounted.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", mounted], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _log(self):
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""


class StandingWalls:
    """Walls of another network namespace, which this process cannot reach; others test them."""

    def keep(self):
        """Do nothing."""

    def take_down(self):
        """Do nothing."""


def _is_dead(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _processes(text):
    """Pids of processes that were started with a text among their arguments."""
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


@pytest.fixture(params=[(), ("--live-restore",)], ids=["plain", "live restore"])
def engine(request):
    """An engine of the test's own with the base image in it."""
    ensure_base_image()
    engine = OwnEngine(*request.param)
    try:
        client, other = engine.start(), connect(None)
        client.api.load_image(other.api.get_image(BASE_IMAGE))
        other.close()
        client.close()
        yield engine
    finally:
        engine.remove()
        gc.collect()  # here, where that warning is expected


@pytest.fixture
def reported():
    """Codes and texts that the miner logged."""
    records = []
    sink = logger.add(lambda message: records.append(message.record), level="INFO")
    yield lambda: [record["extra"].get("code") or record["message"] for record in records]
    logger.remove(sink)


def sleeper(client, name):
    """Make an image whose interpreter, whatever it is told, sleeps; return its id."""
    made = client.api.create_container(
        BASE_IMAGE,
        [
            "sh",
            "-c",
            f'printf "#!/bin/sh\\nwhile :; do sleep 1; done\\n" >{name}; chmod 755 {name}',
        ],
    )
    client.api.start(made["Id"])
    assert client.api.wait(made["Id"])["StatusCode"] == 0
    image = client.api.commit(made["Id"], changes=[f"LABEL {PYTHON_LABEL}={name}"])
    client.api.remove_container(made["Id"], v=True)
    return image["Id"]


def runtime_on(client):
    limits = InstanceLimits(128 * MIB, 1.0, 16 * MIB, 16 * MIB, 96)
    networks = ensure_networks(client, "5Owner")
    return DockerRuntime(client, "5Owner", networks=networks, walls=StandingWalls(), limits=limits)


async def test_a_killed_engine_is_reported_and_nothing_is_orphaned(engine, reported):
    """While it is away nothing counts as ended; afterwards the engine's word counts."""
    client = connect(engine.host)
    name = f"/sleeper-{uuid.uuid4()}"
    image = PreparedImage("image", "0" * 64, sleeper(client, name))
    runtime = runtime_on(client)
    launch = str(uuid.uuid4())
    await runtime.start(InstanceSpec(launch, image))
    await runtime.refresh()
    assert runtime.ended(launch) is None
    assert _processes(name)

    engine.kill()
    await runtime.refresh()
    assert "engine_unreachable" in reported()
    assert runtime.ended(launch) is None
    assert runtime.instances() == (launch,)
    with pytest.raises(ChutesError) as refused:
        await runtime.start(InstanceSpec(str(uuid.uuid4()), image))
    assert refused.value.code == "engine_unreachable"
    assert refused.value.hint

    engine.start().close()
    await runtime.refresh()
    assert "Docker engine answers again" in reported()
    # Without live restore the engine ends what it finds running; with it the instance goes on.
    assert (runtime.ended(launch) is None) == bool(_processes(name)) == engine.restores
    await runtime.stop(launch, 1.0)
    assert client.api.containers(all=True) == []
    assert _processes(name) == []

    again = str(uuid.uuid4())
    await runtime.start(InstanceSpec(again, image))
    await runtime.refresh()
    assert runtime.ended(again) is None
    await runtime.stop(again, 1.0)
    client.close()


async def test_a_stop_waits_for_a_killed_engine(engine):
    """An instance that has to go while the engine is away goes once it is back."""
    client = connect(engine.host)
    name = f"/sleeper-{uuid.uuid4()}"
    image = PreparedImage("image", "0" * 64, sleeper(client, name))
    runtime = runtime_on(client)
    launch = str(uuid.uuid4())
    await runtime.start(InstanceSpec(launch, image))
    engine.kill()
    stopping = asyncio.ensure_future(runtime.stop(launch, 1.0))
    await asyncio.sleep(1.5)
    assert not stopping.done()
    await asyncio.to_thread(engine.start)
    await asyncio.wait_for(stopping, 30)
    assert client.api.containers(all=True) == []
    assert _processes(name) == []
    assert runtime.instances() == ()
    client.close()
