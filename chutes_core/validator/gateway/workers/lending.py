"""What the main process answers to workers that are short of money, slots, or calls of a key.

Path: ASK, TAKE and RETURN of a `Member` -> here -> `leases`, `rates`. Invariant: a purse is refused
only once every other worker has returned what it does not use of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from chutes_core.validator.gateway.workers.asking import QUIET
from chutes_core.validator.gateway.workers.channel import Kind
from chutes_core.validator.gateway.workers.leases import Leases
from chutes_core.validator.gateway.workers.member import Member
from chutes_core.validator.gateway.workers.rates import GivenOut

RECALL_S = 5.0


class Lending:
    """Lends to members.

    Args:
        leases: of money and slots.
        rates: of calls of keys.
        members: all that live.
        run: begins a task of the crew's.
    """

    def __init__(
        self,
        leases: Leases,
        rates: GivenOut,
        *,
        members: Callable[[], Sequence[Member]],
        run: Callable[[Awaitable[None]], None],
    ) -> None:
        self._leases = leases
        self._rates = rates
        self._members = members
        self._run = run
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def asks(self, member: Member, head: Mapping[str, Any]) -> None:
        """Lease more to a worker: what is free, else what others do not use."""
        given = None
        if not self._recalling(head).locked():
            given = self._grant(member, head)
        if given is None and head["id"] != QUIET:
            self._run(self._recall(member, head))
        else:
            self._answer(member, head, given)

    def takes(self, member: Member, head: Mapping[str, Any]) -> None:
        """Give a worker calls of a key."""
        said = self._rates.take(
            head["key"], head["calls_per_minute"], want=head["want"], has=head["has"]
        )
        member.channel.send(Kind.TOKENS, said)

    def returns(self, member: Member, purse: str, amount: int) -> None:
        """Take back what a worker does not use."""
        self._leases.returned(member.name, purse, amount)

    def _grant(self, member: Member, head: Mapping[str, Any]) -> tuple[str, int] | None:
        for purse in head["purses"]:
            amount = self._leases.grant(member.name, purse, head["need"])
            if amount:
                return purse, amount
        return None

    def _answer(
        self, member: Member, head: Mapping[str, Any], given: tuple[str, int] | None
    ) -> None:
        first = head["purses"][0] if head["purses"] else ""
        purse, amount = given or (first, 0)
        free = self._leases.free(first)
        said = {"id": head["id"], "purse": purse, "amount": amount, "free": free}
        member.channel.send(Kind.GRANT, said)

    def _recalling(self, head: Mapping[str, Any]) -> asyncio.Lock:
        """Return the lock that lets one recall of a purse end before another begins."""
        return self._locks.setdefault(min(head["purses"], default=""), asyncio.Lock())

    async def _recall(self, member: Member, head: Mapping[str, Any]) -> None:
        """Answer with what is free, or else with what the others do not use."""
        async with self._recalling(head):
            given = None if member.is_lost else self._grant(member, head)
            if given is None:
                await self._take_back(member, head["purses"])
                given = None if member.is_lost else self._grant(member, head)
            self._answer(member, head, given)

    async def _take_back(self, member: Member, purses: Sequence[str]) -> None:
        """Have all other workers return what they do not use."""
        recalls = [
            asyncio.ensure_future(other.recall(purses))
            for other in self._members()
            if other is not member and any(self._leases.leased(other.name, one) for one in purses)
        ]
        if recalls:
            await asyncio.wait(recalls, timeout=RECALL_S)
            for one in recalls:
                one.cancel()
