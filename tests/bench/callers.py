"""Callers of a gateway on bare sockets: ordinary calls, streams, large bodies, and who vanishes.

Each caller draws from a random generator of its own, so that a seed fixes what is sent (not when it
is answered). Invariant: an id stands in `answered` only if the whole answer was read: its promised
bytes, or the last chunk.
"""

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.ids import Ids
from tests.bench.lived_validator import SLUG

ASKED = b'{"input": "a sentence of ordinary length, as one embeds it"}'
LARGE = b"x" * 200_000
ANSWER_S = 120.0
_INVOCATION = b"x-chutes-invocationid: "


@dataclass
class Seen:
    """What the callers saw."""

    answered: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    left: int = 0
    refused: int = 0

    def told(self) -> dict[str, object]:
        """Return what else was seen, for JSON."""
        statuses = {str(status): count for status, count in sorted(self.statuses.items())}
        return {"cut": self.cut, "left": self.left, "refused": self.refused, "statuses": statuses}

    def ids(self, folder: Path) -> Ids:
        """Return what was answered, to be compared (books.py)."""
        found = Ids(folder / "ids/answered")
        for name in self.answered:
            found.add(name)
        return found


class Callers:
    """Calls without end, on connections that are kept, until told to stop.

    Args:
        port: of the gateway.
        api_key: to call with.
        seed: of what is sent.
        count: of callers at once.
        pause_s: each caller's pause between two calls is between 0 and twice this.
        leaving: share of the calls whose caller goes before the end.
    """

    def __init__(
        self,
        port: int,
        api_key: str,
        *,
        seed: int,
        count: int,
        pause_s: float,
        leaving: float = 0.1,
    ) -> None:
        self.seen = Seen()
        self._port = port
        self._key = api_key
        self._pause_s = pause_s
        self._leaving = leaving
        self._stopping = asyncio.Event()
        self._tasks = [
            asyncio.ensure_future(self._live(random.Random(f"{seed}/{number}")))
            for number in range(count)
        ]

    async def stop(self) -> None:
        """Let every caller end its call, and close its connection."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _live(self, chance: random.Random) -> None:
        link: Link | None = None
        while not self._stopping.is_set():
            await asyncio.sleep(chance.uniform(0, 2 * self._pause_s))
            kind, leaves = chance.random(), chance.random() < self._leaving
            if link is None:
                try:
                    link = await Link.open(self._port)
                except OSError:
                    self.seen.refused += 1
                    await asyncio.sleep(0.05)
                    continue
            if not await self._call(link, kind, leaves=leaves):
                link.abort()
                link = None
        if link is not None:
            link.abort()

    async def _call(self, link: "Link", kind: float, *, leaves: bool) -> bool:
        """Make one call; tell whether the connection is good for another."""
        if kind < 0.7:
            path, body = "echo", ASKED
        elif kind < 0.9:
            path, body = "tokens", ASKED
        else:
            path, body = "echo", LARGE
        try:
            link.send(request(self._key, path, body))
            if leaves:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(link.head(), 0.05)
                self.seen.left += 1
                return False
            answer = await asyncio.wait_for(link.answer(), ANSWER_S)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            self.seen.cut += 1
            return False
        self.seen.statuses[answer.status] += 1
        if answer.status == 200:
            assert path == "tokens" or answer.body == body, "another call's bytes"
            self.seen.answered.append(answer.invocation_id)
        return answer.keep


def request(api_key: str, path: str, body: bytes) -> bytes:
    """Return one call as it stands on the wire."""
    head = (
        f"POST /c/{SLUG}/api/{path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {api_key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    invocation_id: str
    body: bytes
    keep: bool

    @property
    def code(self) -> str:
        """Return the typed error's code."""
        return str(json.loads(self.body)["code"])


class Link:
    """One connection of a caller."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "Link":
        """Connect.

        Raises:
            OSError: nobody listens.
        """
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024))

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def head(self) -> bytes:
        """Return the head of the answer.

        Raises:
            OSError, IncompleteReadError: it did not come.
        """
        return await self._reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> Answer:
        """Read one answer to its end.

        Raises:
            OSError, IncompleteReadError: it was cut.
        """
        head = await self.head()
        lines = head.lower().split(b"\r\n")
        named = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
        if b"transfer-encoding" in named:
            body = await self._chunks()
        else:
            body = await self._reader.readexactly(int(named.get(b"content-length", b"0")))
        return Answer(
            status=int(lines[0].split()[1]),
            invocation_id=named.get(_INVOCATION[:-2], b"").decode(),
            body=body,
            keep=named.get(b"connection") != b"close",
        )

    async def some(self) -> bytes:
        """Return what comes next."""
        return await self._reader.read(65536)

    async def _chunks(self) -> bytes:
        parts = []
        while True:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            data = await self._reader.readexactly(size + 2)
            if not size:
                return b"".join(parts)
            parts.append(data[:-2])

    def fin(self) -> None:
        """Close as a program does that ends in order."""
        self._writer.close()

    def half(self) -> None:
        """Close our direction only."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Close by a reset, as a host does that has lost the process."""
        door = self._writer.get_extra_info("socket")
        door.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def abort(self) -> None:
        """Close at once."""
        self._writer.transport.abort()


async def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 120.0) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it did not.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while not condition():
        if loop.time() > end:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        await asyncio.sleep(0.02)
