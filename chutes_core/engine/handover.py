"""The handing over of a container that waits for its launch: its name, its way out, its one line.

Path: miner/runtime/docker -> here -> the engine. The container's stdin is open to one client, once:
whoever holds the `Line` holds the container, and at its end, also by being killed, the container's
stdin ends. Invariant: the name is the launch's before the line is sent, so that a miner that was
killed in between finds the container under the launch, or as nobody's.
"""

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from docker import DockerClient

from chutes_core.engine.failures import explained
from chutes_core.engine.networks import Network, connect
from chutes_core.engine.run import name_of


class Line:
    """The stdin of one container."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._open = True

    def send(self, environment: Mapping[str, str]) -> None:
        """Send the environment as the one line, and end.

        Raises:
            OSError: nobody reads any more.
        """
        try:
            self._socket.sendall(json.dumps(dict(environment)).encode() + b"\n")
        finally:
            self.close()

    def close(self) -> None:
        """End the container's stdin."""
        if not self._open:
            return
        self._open = False
        with suppress(OSError):  # the engine has hung up before
            self._socket.shutdown(socket.SHUT_RDWR)
        response = getattr(self._stream, "_response", None)
        (self._stream if response is None else response).close()

    @property
    def _socket(self) -> socket.socket:
        """The engine's SDK hands out a reader; what can be sent on is the socket below it."""
        found: socket.socket = getattr(self._stream, "_sock", self._stream)
        return found


def attach(client: DockerClient, container_id: str) -> Line:
    """Take hold of a container that waits.

    Raises:
        ChutesError: the engine refuses.
    """
    with explained("attach to a container"):
        return Line(client.api.attach_socket(container_id, {"stdin": 1, "stream": 1}))


def give(
    client: DockerClient, container_id: str, owner: str, launch_id: str, outside: Network | None
) -> None:
    """Give a container that waits the launch's name, and its way out.

    Raises:
        ChutesError: the engine refuses.
    """
    with explained("rename a container"):
        client.api.rename(container_id, name_of(owner, launch_id))
    if outside is not None:
        connect(client, outside, container_id)
