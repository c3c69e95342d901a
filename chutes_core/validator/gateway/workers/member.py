"""One worker process as the main process knows it: what it was told, and what it last reported.

Invariant: after `lost`, nothing waits for it any more.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Protocol

from chutes_core.base.errors import ChutesError
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.gateway.asgi import AsgiApp
from chutes_core.validator.gateway.workers.channel import Channel, Kind
from chutes_core.validator.gateway.workers.control import ControlStreams
from chutes_core.validator.gateway.workers.journals import JournalFiles


class Lends(Protocol):
    """The part of `Lending` that a member calls."""

    def asks(self, member: "Member", head: Mapping[str, Any]) -> None:
        """Answer ASK."""
        ...

    def takes(self, member: "Member", head: Mapping[str, Any]) -> None:
        """Answer TAKE."""
        ...

    def returns(self, member: "Member", purse: str, amount: int) -> None:
        """Take back what it does not use."""
        ...


class Headquarters(Protocol):
    """The part of the crew that a member calls."""

    def joins(self, member: "Member") -> None:
        """Send it the whole picture."""
        ...

    def is_ready(self, member: "Member") -> None:
        """Note that it serves."""
        ...

    @property
    def lending(self) -> Lends:
        """What it asks when it is short."""
        ...

    def hears(self, before: Mapping[str, ChuteDemand], demand: Mapping[str, ChuteDemand]) -> None:
        """Take note of a report."""
        ...


class Member:
    """Attributes.

    joined: it was sent a whole picture, and is sent all changes since.
    shown: the version of the picture that it decides by.
    stats, counts: its figures as last reported (`Gateway.stats`, `metrics.Counts`).
    failure: why it could not serve.
    """

    def __init__(
        self, name: str, crew: Headquarters, journal: JournalFiles, now: Callable[[], float]
    ) -> None:
        self.name = name
        self.journal = journal
        self.channel: Channel = None  # type: ignore[assignment]
        self.joined = False
        self.is_lost = False
        self.shown = 0
        self.busy: Mapping[str, int] = {}
        self.demand: Mapping[str, ChuteDemand] = {}
        self.stats: Mapping[str, int] = {}
        self.counts: Mapping[str, Any] | None = None
        self.failure: ChutesError | None = None
        self._crew = crew
        self._now = now
        self._heard_s = now()
        self._control: ControlStreams = None  # type: ignore[assignment]
        self._numbers = count(1)
        self._recalls: dict[int, asyncio.Future[None]] = {}
        self._showing: list[tuple[int, asyncio.Future[None]]] = []

    def use(self, channel: Channel, control: AsgiApp) -> None:
        """Speak over this channel."""
        self.channel = channel
        self._control = ControlStreams(control, channel)

    @property
    def silent_s(self) -> float:
        """Return how long it has said nothing."""
        return self._now() - self._heard_s

    def take(self, kind: Kind, stream: int, head: Mapping[str, Any], data: bytes) -> None:
        """Take a frame."""
        self._heard_s = self._now()
        if stream:
            self._control.took(kind, stream, head, data)
        elif kind is Kind.ASK:
            self._crew.lending.asks(self, head)
        elif kind is Kind.TAKE:
            self._crew.lending.takes(self, head)
        elif kind is Kind.RETURN:
            for purse, amount in head["purses"].items():
                self._crew.lending.returns(self, purse, amount)
        elif kind is Kind.RETURNED:
            _resolve(self._recalls.get(head["id"]))
        elif kind is Kind.SHOWN:
            self.busy = head["busy"]
            self._is_shown(head["version"])
        elif kind is Kind.REPORT:
            self._reported(head)
        elif kind is Kind.HELLO:
            self.journal.reported = head["last"]
            self._crew.joins(self)
        elif kind is Kind.READY:
            self._crew.is_ready(self)
        elif kind is Kind.FAILED:
            self.failure = ChutesError(head["code"], head["message"], hint=head["hint"])

    def lost(self) -> None:
        """Let nobody wait for it: the process has closed its end."""
        self.is_lost = True
        self._control.lost()
        for waiting in self._recalls.values():
            _resolve(waiting)
        self._is_shown(None)

    async def close(self) -> None:
        """Forget it; the process is gone."""
        self.lost()
        self.channel.close()
        await self._control.close()

    async def recall(self, purses: Sequence[str]) -> None:
        """Return once it has returned what it does not use of these purses."""
        number = next(self._numbers)
        waiting = self._recalls[number] = asyncio.get_running_loop().create_future()
        try:
            self.channel.send(Kind.RECALL, {"id": number, "purses": list(purses)})
            await waiting
        finally:
            del self._recalls[number]

    async def show(self, version: int, changes: bytes) -> None:
        """Return once it decides by a picture; it is sent before this first waits."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._showing.append((version, waiting))
        self.channel.send(Kind.PICTURE, changes)
        if self.is_lost:
            return
        await waiting

    def _is_shown(self, version: int | None) -> None:
        self.shown = self.shown if version is None else version
        for one, waiting in self._showing:
            if version is None or one <= version:
                _resolve(waiting)
        self._showing = [(one, waiting) for one, waiting in self._showing if not waiting.done()]

    def _reported(self, head: Mapping[str, Any]) -> None:
        self.journal.reported = head["last"]
        self.busy = head["busy"]
        self.stats, self.counts = head["stats"], head["counts"]
        before = self.demand
        self.demand = {chute: ChuteDemand(*one) for chute, one in head["demand"].items()}
        self._crew.hears(before, self.demand)


def _resolve(waiting: "asyncio.Future[None] | None") -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
