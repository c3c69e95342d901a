"""A job's own connection as an end of a bridge, each direction for itself.

Path: ports -> here -> the job's server on loopback. A plain socket and no stream of asyncio's:
there a write that fails takes along what has come and was not read yet, so that a server which
answers early and closes, its caller still sending, would not be heard. Invariant: what the job sent
before it closed is read to its end, whatever became of what was sent to it.
"""

import asyncio
import contextlib
import socket
import struct
from math import inf

from chutes_core.base.errors import ProtocolError
from chutes_core.wire.bridge import PIECE_BYTES

LINGER_S = 5.0
_RESET = struct.pack("ii", 1, 0)


class JobSocket:
    """Made by `dial`.

    Attributes:
        lost: whether it was the job's side that ended what went over it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._ended = False  # it sends no more
        self._deaf = False  # it takes no more
        self._over_at = inf
        self.lost = False

    async def receive(self) -> bytes | None:
        """Return what came; None at the connection's end."""
        if self._ended:
            await asyncio.Event().wait()
        try:
            data = await self._loop.sock_recv(self._sock, PIECE_BYTES)
        except OSError as error:
            raise self._lost() from error
        if data:
            return data
        self._ended = True
        return None

    async def send(self, data: bytes) -> None:
        """Write it; what nobody takes any more is dropped.

        Where the job has ended its own direction, too, that goes on for LINGER_S: its caller may
        still be reading what it said, and ends this then.
        """
        if not self._deaf:
            try:
                await self._loop.sock_sendall(self._sock, data)
            except OSError:
                self._deaf = True
        if self._deaf and self._ended:
            now = self._loop.time()
            self._over_at = min(self._over_at, now + LINGER_S)
            if now >= self._over_at:
                raise self._lost()

    async def send_end(self) -> None:
        """Close the writing side."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Cut the connection; nothing waits on it any more."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._sock.close()

    def close(self) -> None:
        """Close it; what was sent still leaves."""
        self._sock.close()

    def _lost(self) -> ProtocolError:
        self.lost = True
        return ProtocolError("connection_lost", "the job's connection was cut")


async def connect(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to a port.

    Raises:
        OSError: nothing listens there.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def dial(host: str, port: int) -> JobSocket:
    """Connect to a port.

    Raises:
        OSError: nothing listens there.
    """
    return JobSocket(await connect(host, port))
