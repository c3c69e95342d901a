"""The bounds of a container that the kernel and the engine keep, each passed from inside."""

import json

import pytest

from chutes_core.engine.run import LOG_BYTES, LOG_FILES, Limits
from tests.docker.test_start_failures import MIB, place, spec_of

__all__ = ["place"]  # the fixture
FOLDERS = ("/dev/shm", "/tmp", "/home/chute")
SPACE = Limits(
    memory_bytes=256 * MIB,
    nano_cpus=10**9,
    shm_bytes=8 * MIB,
    tmp_bytes=16 * MIB,
    home_bytes=24 * MIB,
    open_files=256,
)
FILL = f"""
import errno, json, os, resource
found = {{}}
for folder in {FOLDERS}:
    size = 0
    with open(folder + "/full", "wb", buffering=0) as file:
        try:
            while size < {64 * MIB}:
                size += file.write(bytes({MIB}))
            found[folder] = [size, ""]
        except OSError as error:
            found[folder] = [size, errno.errorcode[error.errno]]
    os.remove(folder + "/full")
held = []
try:
    while len(held) < 1000:
        held.append(open("/dev/null"))
    found["files"] = [len(held), ""]
except OSError as error:
    found["files"] = [len(held), errno.errorcode[error.errno]]
held.clear()
found["core"] = resource.getrlimit(resource.RLIMIT_CORE)
print(json.dumps(found), flush=True)
"""
SHOUT = f"""
line = "x" * 1023
for number in range({4 * LOG_BYTES * LOG_FILES // 1024}):
    print(line)
print("the end", flush=True)
"""


def said_by(place, code, limits=SPACE):
    """Run a program to its end; return its output as the engine kept it, and its container."""
    containers, _, _ = place
    spec = spec_of(place, entrypoint=("python3", "-c", code), limits=limits)
    container_id = containers.start(spec)
    client = containers._client
    assert client.api.wait(container_id, timeout=180)["StatusCode"] == 0
    return client.api.logs(container_id).decode()


@pytest.fixture
def filled(place):
    """What a program says that takes all it can get."""
    return json.loads(said_by(place, FILL))


def test_space_ends_at_its_bounds(filled):
    """Each of shared memory, /tmp and home has its own bound, and the error is the usual one."""
    bounds = (SPACE.shm_bytes, SPACE.tmp_bytes, SPACE.home_bytes)
    for folder, bound in zip(FOLDERS, bounds, strict=True):
        assert filled[folder] == [bound, "ENOSPC"]


def test_open_files_and_core_files_are_bounded(filled):
    """So many files and no more; a crash writes no core file."""
    count, error = filled["files"]
    assert SPACE.open_files - 16 < count < SPACE.open_files
    assert error == "EMFILE"
    assert filled["core"] == [0, 0]


def test_the_log_keeps_its_last_files(place):
    """A program that shouts fills two files; what it said last is there, the beginning is not."""
    kept = said_by(place, SHOUT)
    assert kept.endswith("the end\n")
    assert 0 < len(kept) < LOG_BYTES * LOG_FILES
