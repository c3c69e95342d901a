"""A control group around one build, because the engine itself cannot bound a build's processes.

Path: docker_builder -> `build_cgroup` -> BuildLimits.cgroup_parent. The classic builder has no pids
limit of its own, but puts its containers below a given parent group; a limit set there holds for
all of them. Works where this process is root on the engine's host and the engine manages control
groups itself (``cgroupfs``, versions 1 and 2). Invariant: the group is gone after the block.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import docker

from chutes_core.engine.failures import explained

ROOT = Path("/sys/fs/cgroup")
_PREFIX = "chutes-build-"


@contextlib.contextmanager
def build_cgroup(
    client: docker.DockerClient, max_processes: int, *, root: Path = ROOT
) -> Iterator[str | None]:
    """Give the name of a parent group with a limit of processes; None where none can be made."""
    with explained("read the engine's settings"):
        info = client.api.info()
    name = _PREFIX + secrets.token_hex(6)
    made = False
    if info.get("CgroupDriver") == "cgroupfs":
        version = str(info.get("CgroupVersion", "1"))
        made = _make(root / "pids" / name if version == "1" else root / name, max_processes)
    try:
        yield f"/{name}" if made else None
    finally:
        if made:
            _remove(root, name)


def _make(group: Path, max_processes: int) -> bool:
    try:
        group.mkdir()
        (group / "pids.max").write_text(str(max_processes))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return False
    return True


def _remove(root: Path, name: str) -> None:
    """Remove the group from every hierarchy in which the engine made it too."""
    for group in (root / name, *root.glob(f"*/{name}")):
        if group.is_symlink() or group.parent.is_symlink():
            continue
        for child in sorted(group.glob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                child.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
