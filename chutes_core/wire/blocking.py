"""The validator's end on a blocking socket, for the timed legs of a proof.

It lives in a process of its own (validator/attest), so no event loop stands between the bytes and
the clock. Invariant: every wait has a deadline.
"""

import contextlib
import socket
import time
from collections import deque
from types import TracebackType

from chutes_core.base.errors import TimedOut, Unavailable
from chutes_core.wire.frames import Frame, FrameCodec, FrameKind
from chutes_core.wire.sealing import NONCE_BYTES, ConnectionKeys, Preamble


class BlockingConnection:
    """Frames over one blocking TCP connection, as a context manager."""

    def __init__(self, sock: socket.socket, codec: FrameCodec) -> None:
        self._socket = sock
        self._codec = codec
        self._frames: deque[Frame] = deque()

    def __enter__(self) -> "BlockingConnection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def send(self, kind: FrameKind, payload: bytes = b"") -> None:
        """Send one frame.

        Raises:
            Unavailable: ``connection_lost``.
        """
        try:
            self._socket.sendall(self._codec.seal(kind, payload))
        except OSError as error:
            raise _lost() from error

    def receive(self, timeout_s: float) -> Frame:
        """Return the next frame.

        Raises:
            TimedOut: ``frame_timeout``.
            Unavailable: ``connection_lost``.
            ProtocolError: bytes that do not authenticate.
        """
        deadline = time.monotonic() + timeout_s
        while not self._frames:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(64 * 1024)
            except TimeoutError as error:
                raise TimedOut("frame_timeout", f"nothing came within {timeout_s:.3f} s") from error
            except OSError as error:
                raise _lost() from error
            if not data:
                raise _lost()
            self._frames.extend(self._codec.feed(data))
        return self._frames.popleft()


def open_blocking(
    host: str,
    port: int,
    *,
    root: bytes,
    ticket: bytes,
    launch_id: str,
    generation: int,
    timeout_s: float,
) -> BlockingConnection:
    """Dial an instance through its relay.

    Raises:
        Unavailable: ``connect_failed`` or ``connection_lost``.
    """
    try:
        sock = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise Unavailable("connect_failed", f"{host}:{port} does not accept connections") from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        preamble = Preamble.build(ticket=ticket, launch_id=launch_id, generation=generation)
        sock.sendall(preamble.to_bytes())
        nonce = _read_exactly(sock, NONCE_BYTES)
    except OSError as error:
        sock.close()
        raise _lost() from error
    except Unavailable:
        sock.close()
        raise
    keys = ConnectionKeys.derive(root, validator_nonce=preamble.nonce, instance_nonce=nonce)
    return BlockingConnection(sock, FrameCodec.for_validator(keys))


def _read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise _lost()
        data += chunk
    return bytes(data)


def _lost() -> Unavailable:
    return Unavailable("connection_lost", "the peer closed the connection")
