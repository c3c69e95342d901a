"""Calls at a steady rate, or as many as are answered: a light load, all of one process's loop.

Ordinary calls, streams, large bodies and callers who leave, as callers.py has them, but with
requests that were made beforehand and bare protocols, so that the gateway and not its callers is
what limits. The load is open: a call begins when it is due, whether or not others were answered;
only where all slots are taken it waits, and then the rate was not kept. Invariant: an id stands in
`answered` only if the whole answer came, byte for byte the expected one.
"""

import asyncio
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from tests.bench.callers import ASKED, LARGE, request, until
from tests.bench.ids import Ids
from tests.bench.sealed_origin import TOKEN

TICK_S = 0.002
LEAVE_S = 0.05
BEHIND_S = 0.05  # of the rate: a second that ends with more calls overdue was not kept
_LENGTH = b"\r\ncontent-length: "
_INVOCATION = b"\r\nx-chutes-invocationid: "
_CHUNKED = b"\r\ntransfer-encoding: chunked"


@dataclass(frozen=True)
class Mix:
    """Shares of the calls; the rest are ordinary ones. Leavers are of all kinds."""

    streams: float = 0.04
    large: float = 0.03
    leaving: float = 0.02


@dataclass
class Counts:
    """What has happened so far."""

    begun: int = 0
    answered: int = 0
    left: int = 0
    cut: int = 0
    refused: int = 0
    opened: int = 0
    late: int = 0
    seconds: int = 0
    kept_seconds: int = 0
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def ended(self) -> int:
        """Return how many calls are over, one way or the other."""
        return sum(self.statuses.values()) + self.left + self.cut


@dataclass(frozen=True)
class _Kind:
    request: bytes
    expected: bytes


class Load:
    """Calls without end until told to stop.

    Args:
        port: of the gateway.
        api_key: to call with.
        answered: takes the ids of whole answers.
        seed: of what is called in which order.
        slots: how many calls may go on at once.
        per_s: calls begun in a second; None: a new one whenever a slot is free.
        mix: of the kinds.
        tokens: how many a stream has.
    """

    def __init__(
        self,
        port: int,
        api_key: str,
        answered: Ids,
        *,
        seed: int,
        slots: int,
        per_s: float | None,
        mix: Mix | None = None,
        tokens: int = 20,
    ) -> None:
        self.counts = Counts()
        self.busy: set[_Caller] = set()
        self.idle: deque[_Caller] = deque()
        self.opening = 0
        self.answered = answered
        self._port, self._slots, self._per_s = port, slots, per_s
        self._mix = mix or Mix()
        self._chance = random.Random(seed)
        self._ordinary = _Kind(request(api_key, "echo", ASKED), ASKED)
        self._stream = _Kind(request(api_key, "tokens", ASKED), TOKEN * tokens)
        self._large = _Kind(request(api_key, "echo", LARGE), LARGE)
        self._loop = asyncio.get_running_loop()
        self._begun = time.monotonic()
        self._stopping = False
        self._openings: set[asyncio.Task[None]] = set()
        self._tasks = [
            asyncio.ensure_future(self._tick()),
            asyncio.ensure_future(self._watch()),
        ]

    async def stop(self) -> None:
        """Let every call end, and close all connections."""
        self._stopping = True
        await asyncio.gather(*self._tasks, *self._openings)
        await until(lambda: not self.busy, "the last calls to end")
        while self.idle:
            self.idle.pop().transport.abort()

    def more(self) -> None:
        """Begin every call that is due and has a slot."""
        while not self._stopping and len(self.busy) + self.opening < self._slots and self._due():
            self.counts.begun += 1
            if self.idle:
                self._call(self.idle.popleft())
            else:
                self.opening += 1
                task = asyncio.ensure_future(self._open())
                self._openings.add(task)
                task.add_done_callback(self._openings.discard)

    def _due(self) -> bool:
        if self._per_s is None:
            return True
        return self.counts.begun < (time.monotonic() - self._begun) * self._per_s

    def _call(self, caller: "_Caller") -> None:
        drawn, leaves = self._chance.random(), self._chance.random() < self._mix.leaving
        if drawn < self._mix.streams:
            kind = self._stream
        elif drawn < self._mix.streams + self._mix.large:
            kind = self._large
        else:
            kind = self._ordinary
        caller.call(kind, self._chance.uniform(0, LEAVE_S) if leaves else None)

    async def _open(self) -> None:
        try:
            _, caller = await self._loop.create_connection(
                lambda: _Caller(self), "127.0.0.1", self._port
            )
            self.counts.opened += 1
            self._call(caller)
        except OSError:
            self.counts.refused += 1
            await asyncio.sleep(LEAVE_S)
        finally:
            self.opening -= 1

    async def _tick(self) -> None:
        while not self._stopping:
            self.more()
            await asyncio.sleep(TICK_S)

    async def _watch(self) -> None:
        """Note for each second whether its calls were begun when they were due."""
        counts, due = self.counts, self._begun
        while not self._stopping:
            due += 1.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._stopping or self._per_s is None:
                continue
            overdue = (time.monotonic() - self._begun - BEHIND_S) * self._per_s - counts.begun
            counts.seconds += 1
            counts.kept_seconds += overdue <= 0
            counts.late += max(0, int(overdue))


class _Caller(asyncio.Protocol):
    """One connection of a caller; one call at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._kind: _Kind | None = None
        self._leaves: asyncio.TimerHandle | None = None
        self._leaving = False
        self._head = b""
        self._parts: list[bytes] = []
        self._missing = 0
        self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def call(self, kind: _Kind, leave_s: float | None) -> None:
        """Send a request; its caller leaves with the first byte of the answer, or so late."""
        self._kind, self._head, self._parts = kind, b"", []
        self._load.busy.add(self)
        self._leaving = leave_s is not None
        self.transport.write(kind.request)
        if leave_s is not None:
            self._leaves = asyncio.get_running_loop().call_later(leave_s, self._leave)

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            self._leave()
            return
        assert self._kind is not None, "bytes that nobody asked for"
        if self._head:
            self._more(data)
            return
        if self._parts:
            data = b"".join((*self._parts, data))
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._parts = [data]
            return
        self._head, self._parts = data[: end + 2].lower(), []
        at = self._head.find(_LENGTH)
        self._missing = -1
        if at >= 0:
            at += len(_LENGTH)
            self._missing = int(self._head[at : self._head.index(b"\r", at)])
        else:
            assert _CHUNKED in self._head, self._head
        self._more(data[end + 4 :])

    def _more(self, data: bytes) -> None:
        if data:
            self._parts.append(data)
        if self._missing >= 0:
            self._missing -= len(data)
            assert self._missing >= 0, "more than was promised"
            if self._missing == 0:
                self._answered(b"".join(self._parts))
        elif b"".join(self._parts[-8:]).endswith(b"0\r\n\r\n"):
            self._answered(_dechunked(b"".join(self._parts)))

    def _answered(self, body: bytes) -> None:
        load, kind, head = self._load, self._kind, self._head
        assert kind is not None
        status = int(head[9:12])
        load.counts.statuses[status] += 1
        if status == 200:
            assert body == kind.expected, "another call's bytes"
            at = head.index(_INVOCATION) + len(_INVOCATION)
            load.answered.add(head[at : at + 36].decode())
            load.counts.answered += 1
        self._kind, self._parts = None, []
        load.busy.discard(self)
        if b"\r\nconnection: close" in head or load._stopping:
            self.transport.abort()
        else:
            load.idle.append(self)
        load.more()

    def _leave(self) -> None:
        if self._leaves is not None:
            self._leaves.cancel()
            self._leaves = None
        if self._kind is None:
            return
        self._kind = None
        self._load.counts.left += 1
        self._load.busy.discard(self)
        self.transport.abort()
        self._load.more()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._leaves is not None:
            self._leaves.cancel()
        if self._kind is not None:
            self._kind = None
            self._load.counts.cut += 1
            self._load.busy.discard(self)
            self._load.more()
        elif self in self._load.idle:
            self._load.idle.remove(self)


def _dechunked(data: bytes) -> bytes:
    """Return the body that whole chunks carry."""
    parts, at = [], 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if not size:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 4 + size
