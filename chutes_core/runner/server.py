"""The listener: one port, many sealed connections.

Path: a connection -> preamble -> the launch and generation it may have -> `serve_link`.
Invariant: nothing is answered to a connection that does not open with a preamble of this launch
and the current generation; a connection's failure stays its own.
"""

import asyncio
import logging

from chutes_core.base.errors import ChutesError
from chutes_core.runner.link import Link
from chutes_core.runner.session import Instance, serve_link
from chutes_core.wire.connection import accept, read_preamble

PREAMBLE_S = 10.0
FIRST_FRAME_S = 60.0
BACKLOG = 256
_LOG = logging.getLogger("chutes_core.runner")


class Listener:
    """Accepts connections until it is closed.

    Args:
        instance: what the connections share.
        max_connections: open at once; more are closed unread.
    """

    def __init__(self, instance: Instance, max_connections: int) -> None:
        self._instance = instance
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> int:
        """Start listening; the port.

        Raises:
            OSError: the address cannot be bound.
        """
        self._server = await asyncio.start_server(self._accepted, host, port, backlog=BACKLOG)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= self._max_connections:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # the listener closes; nobody awaits this task's result
        finally:
            self._open.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            preamble = await read_preamble(reader, PREAMBLE_S)
            root = self._instance.identity.root_for(preamble)
        except ChutesError as error:
            _LOG.info("refused a connection: %s", error)
            writer.transport.abort()
            return
        proven = self._instance.identity.proven
        link = Link(accept(reader, writer, preamble, root=root), FIRST_FRAME_S)
        try:
            if reason := await serve_link(self._instance, link, proven=proven):
                _LOG.info("a connection ended: %s", reason)
        finally:
            await link.close()
