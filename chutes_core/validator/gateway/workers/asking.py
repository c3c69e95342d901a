"""A worker's questions to the main process, and the answers as they come.

Path: a purse or a bucket is short -> ASK or TAKE -> main process -> GRANT or TOKENS. Invariant:
what is granted is credited when it arrives, before whoever waits for it goes on.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Protocol

import anyio

from chutes_core.base.errors import Unavailable
from chutes_core.validator.gateway.workers.channel import Kind

QUIET = 0  # of a question that nobody waits for
ANSWER_S = 10.0


class Says(Protocol):
    """The part of a channel that asking needs."""

    def send(self, kind: Kind, head: object) -> None:
        """Send a frame."""
        ...


class Asking:
    """Questions that wait for their answers, by number."""

    def __init__(self, says: Says) -> None:
        self._says = says
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._granted: dict[int, Callable[[str], None]] = {}

    async def ask(
        self, purses: Sequence[str], need: int, granted: Callable[[str], None]
    ) -> Mapping[str, Any]:
        """Ask for ``need`` of the first of these purses that has it.

        Args:
            purses: in order of preference.
            need: how much more.
            granted: called with a purse in the moment in which more of it comes, if that is still
                waited for; until `ask` returns nothing may be given up that its caller needs.

        Returns:
            ``amount`` 0 where none has it, and ``free``, what the first still has.

        Raises:
            Unavailable: ``gateway_busy``, no answer came.
        """
        number = next(self._numbers)
        waiting: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number], self._granted[number] = waiting, granted
        try:
            self._says.send(Kind.ASK, {"id": number, "purses": list(purses), "need": need})
            return await answer(waiting)
        finally:
            del self._waiting[number], self._granted[number]

    def ask_soon(self, purse: str, need: int) -> None:
        """Ask for more of a purse without waiting; nobody is recalled for it."""
        self._says.send(Kind.ASK, {"id": QUIET, "purses": [purse], "need": need})

    def take_soon(self, key: str, calls_per_minute: int | None, *, want: int, has: int) -> None:
        """Ask for calls of a key; the answer is TOKENS.

        Args:
            key: its id.
            calls_per_minute: the key's own limit.
            want: how many will be made soon.
            has: how many may be made here until the answer comes.
        """
        head = {"key": key, "calls_per_minute": calls_per_minute, "want": want, "has": has}
        self._says.send(Kind.TAKE, head)

    def answered(self, head: Mapping[str, Any]) -> None:
        """Pass an answer on, after it was credited."""
        waiting = self._waiting.get(head["id"])
        if waiting is not None and not waiting.done():
            if head.get("amount"):
                self._granted[head["id"]](head["purse"])
            waiting.set_result(head)


async def answer(waiting: "asyncio.Future[Mapping[str, Any]]") -> Mapping[str, Any]:
    """Return an answer of the main process once it comes.

    Raises:
        Unavailable: ``gateway_busy``, no answer came.
    """
    try:
        with anyio.fail_after(ANSWER_S):  # wait_for can lose a caller's leaving before 3.12
            return await waiting
    except TimeoutError as error:
        raise Unavailable(
            "gateway_busy",
            "the gateway's main process gave no answer in time",
            hint="nothing was charged; try again in a moment",
        ) from error
