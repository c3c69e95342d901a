"""This host's folder and ports: one miner a data directory, ports that survive a restart.

A validator keeps the relay port of a launch, so a miner told to take any free port takes the same
one again after a restart. Invariant: two miners never share a data directory, for it holds the
book of leases.
"""

import fcntl
import json
import os
import resource
import socket
from pathlib import Path

from loguru import logger

from chutes_core.base.errors import Conflict

_BACKLOG = 512
_OPEN_FILES = 16_384


class DataDir:
    """The locked data directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        self._lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Conflict(
                "data_dir_in_use",
                f"another miner runs on {path}",
                hint="give each miner its own CHUTES_MINER_DATA_DIR",
            ) from error

    def close(self) -> None:
        """Give the directory free."""
        os.close(self._lock)

    def listen(self, name: str, host: str, port: int) -> socket.socket:
        """Return a listening socket; port 0 takes the port of last time, else any free one.

        Raises:
            Conflict: ``port_in_use``.
        """
        known = remembered_ports(self.path)
        remembered = known.get(name, 0) if port == 0 else port
        try:
            listening = _listen(host, remembered)
        except OSError as error:
            if port != 0 or remembered == 0:
                raise Conflict(
                    "port_in_use",
                    f"cannot listen on {host}:{port}: {error.strerror}",
                    hint="choose another port or address",
                ) from error
            listening = _listen(host, 0)
            logger.bind(code="port_moved", name=name, port=remembered).warning(
                "port of the last run was taken; validators must learn a new one"
            )
        ports = known | {name: listening.getsockname()[1]}
        temporary = self.path / "ports.tmp"
        temporary.write_text(json.dumps(ports))
        temporary.replace(self.path / "ports.json")
        return listening


def is_in_use(data: Path) -> bool:
    """Tell whether a miner runs on a data directory."""
    try:
        descriptor = os.open(data / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remembered_ports(data: Path) -> dict[str, int]:
    """Return the ports of the last run by their names."""
    try:
        found = json.loads((data / "ports.json").read_text())
        return {str(name): int(port) for name, port in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def raise_open_files() -> int:
    """Raise this process's soft limit of open files as far as it may; return the limit.

    The relay needs two for each connection, and the usual soft limit of 1024 ends early.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return allowed
    return soft


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listening.setblocking(False)
    return listening
