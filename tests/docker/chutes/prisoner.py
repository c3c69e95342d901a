"""A chute that tries what an instance must not be able to do, and says how far it came."""

import asyncio
import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

ROOTED = "/usr/local/bin/rooted-python"  # a program of root with the setuid bit, as su is one
AT_START: list[str] = []  # what the start-up hook dials; the test puts its own addresses here

image = (
    Image(username="demo", name="prisoner", tag="1.0")
    .from_base("parachutes/python:3.12")
    .run_command(f'cp "$(readlink -f "$(command -v python3)")" {ROOTED}')
    .run_command(f"chown 0:0 {ROOTED} && chmod 4755 {ROOTED}")
    .run_command("echo secret >/usr/local/of-root && chmod 600 /usr/local/of-root")
)

chute = Chute(
    username="demo",
    name="prisoner",
    image=image,
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
    concurrency=2,
)


def put_mark(folder: str) -> None:
    Path(folder, "mark").write_text("x")


def own_status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def dial_all(targets: list[str], timeout_s: float) -> dict[str, str]:
    found = {}
    for target in targets:
        host, _, port = target.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout_s).close()
            found[target] = "open"
        except OSError as error:
            found[target] = type(error).__name__
    return found


@chute.on_startup()
async def look_around(self: Any) -> None:
    """Dial while the way out is open."""
    self.at_start = dial_all(AT_START, 2.0)


@chute.cord(public_api_path="/at_start")
async def at_start(self: Any) -> dict[str, str]:
    """Say what the start-up hook reached."""
    return dict(self.at_start)


@chute.cord(public_api_path="/dial")
async def dial(self: Any, targets: list[str], timeout_s: float = 1.0) -> dict[str, str]:
    """Try to open a TCP connection to each `host:port`."""
    return dial_all(targets, timeout_s)


@chute.cord(public_api_path="/rooted")
async def rooted(self: Any) -> list[str]:
    """Run the program of root, and say who it is then: real, effective, saved uid; what it read."""
    code = "import os; print(*os.getresuid()); print(open('/usr/local/of-root').read())"
    done = subprocess.run(  # noqa: ASYNC221 - it takes a moment only
        [ROOTED, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    return [done.stdout, done.stderr]


@chute.cord(public_api_path="/write")
async def write(self: Any, paths: list[str]) -> dict[str, str]:
    """Try to create a file in each folder."""
    found = {}
    for path in paths:
        try:
            put_mark(path)
            found[path] = "written"
        except OSError as error:
            found[path] = error.strerror or "error"
    return found


@chute.cord(public_api_path="/fork")
async def fork(self: Any, most: int) -> int:
    """Start sleeping children until the kernel refuses, at most so many; end them again."""
    children = []
    try:
        while len(children) < most:
            child = [sys.executable, "-S", "-c", "input()"]
            children.append(subprocess.Popen(child, stdin=-1))  # noqa: ASYNC220 - it is the attack
    except OSError:
        pass
    for child in children:
        child.kill()
        child.wait()
    return len(children)


@chute.cord(public_api_path="/privileges")
async def privileges(self: Any) -> dict[str, Any]:
    """Say who this is, which capabilities it has, and what happens when it asks for more."""
    status = own_status()
    refused = []
    for name, attempt in (
        ("setuid", lambda: os.setuid(0)),
        ("chroot", lambda: os.chroot("/tmp")),
        ("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    ):
        try:
            attempt()
        except OSError:
            refused.append(name)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) != 0:
        refused.append("mount")
    if libc.unshare(0x10000000) != 0:
        refused.append("user namespace")
    return {
        "uid": os.getuid(),
        "capabilities": [status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")],
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "seccomp": status["Seccomp"].strip(),
        "refused": refused,
    }


@chute.cord(public_api_path="/eat")
async def eat(self: Any, mib: int) -> int:
    """Touch so much memory."""
    eaten = [bytearray(os.urandom(1 << 20)) for _ in range(mib)]
    return len(eaten)


@chute.cord(public_api_path="/linger")
async def linger(self: Any, seconds: float, word: str) -> str:
    """Print a word and take some time."""
    print(word, flush=True)
    await asyncio.sleep(seconds)
    return "done"
