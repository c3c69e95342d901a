"""Brings a call to an instance, tries others until one answers, and has the result metered.

Path: admission -> routing -> forward -> relay -> runner, and back -> metering. Invariants: nothing
is tried again once a byte of the answer has gone to the caller; a slot, a connection and a hold are
given back in every case; the record is in the journal before the last byte leaves.
"""

import asyncio
from dataclasses import dataclass

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError, Exhausted, ProtocolError, TimedOut, Unavailable
from chutes_core.validator.domain.invocations import Outcome
from chutes_core.validator.domain.snapshot import ChuteView
from chutes_core.validator.domain.statuses import status_of
from chutes_core.validator.gateway.admission import Admitted
from chutes_core.validator.gateway.affinity import prefix_of
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.demand import Demand
from chutes_core.validator.gateway.exchange import PAID_TIME_OVER, Ending, Exchange
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.metering import Metering
from chutes_core.validator.gateway.pool import Borrowed, Pool
from chutes_core.validator.gateway.queue import ColdQueue
from chutes_core.validator.gateway.reply import Reply
from chutes_core.validator.gateway.routing import NoSlot, Route, Router
from chutes_core.validator.gateway.switched import Switched
from chutes_core.validator.gateway.websockets import unsupported
from chutes_core.wire.call import SWITCHING, ResponseHead
from chutes_core.wire.launch import FrameError

CHUTE_FAULT = frozenset(("cord_failed", "bad_response"))  # the runner says: the chute's own code
NO_FAULT = frozenset(("at_capacity", "draining"))
UNKNOWN_FIELD = "bad_order"  # a runner's answer to a CALL with a field that it does not know
CALLER_LEFT = 499  # in records only: nobody was there to receive a status


@dataclass(frozen=True)
class Refusal:
    """No byte of an answer came; the call may go elsewhere."""

    error: ChutesError


class Forwarder:
    """Runs admitted calls; its collaborators are the gateway's."""

    def __init__(
        self,
        *,
        router: Router,
        pool: Pool,
        queue: ColdQueue,
        demand: Demand,
        metering: Metering,
        limits: GatewayLimits,
        clock: Clock,
    ) -> None:
        self._router = router
        self._pool = pool
        self._queue = queue
        self._demand = demand
        self._metering = metering
        self._limits = limits
        self._clock = clock

    async def run(self, call: Call, reply: Reply) -> None:
        """Answer a call; an answer that must look cut off is left unfinished.

        Raises:
            ChutesError: there was no answer, or it broke off (``reply.started`` tells).
        """
        outcome: Outcome
        try:
            ending = await self._serve(call, reply)
        except asyncio.CancelledError:
            call.status = call.status or CALLER_LEFT
            outcome = "client_gone" if call.caller_left else "failed"
            self._metering.record(call, outcome, bytes_out=reply.bytes_out)
            raise
        except ChutesError as error:
            self.failed(call, error, bytes_out=reply.bytes_out)
            raise
        self._metering.record(call, ending.outcome, bytes_out=reply.bytes_out + reply.held_bytes)
        if ending.whole:
            await reply.finish()

    def failed(self, call: Call, error: ChutesError, *, bytes_out: int) -> None:
        """Have a call metered that ended by an error."""
        call.status = call.status or status_of(error)
        outcome: Outcome = "chute_error" if error.code == "chute_error" else "failed"
        self._metering.record(call, outcome, bytes_out=bytes_out)

    def refused(self, call: Call, route: Route, said: FrameError) -> Refusal:
        """Judge an ERROR that came in place of an answer.

        Raises:
            ProtocolError: ``chute_error``, the instance works and its chute does not.
            Invalid: ``websocket_unsupported``, its runner is older than websockets.
        """
        if call.upgrade is not None and said.code == UNKNOWN_FIELD:
            call.taken_back(fault=False)
            raise unsupported(
                "this chute's image was built before websockets were carried",
                "its owner builds it anew: chutes build, then chutes deploy",
            )
        if said.code in CHUTE_FAULT:
            route.succeeded(call.usage_us(self._clock))
            raise _chute_failed()
        return self._refused(call, route, _refusal(said), fault=said.code not in NO_FAULT)

    async def _serve(self, call: Call, reply: Reply) -> Ending:
        home = call.chute_id  # where the call is counted while no instance has it
        while call.attempts < self._limits.max_attempts:
            route = await self._route(call, home)
            call.tried = (*call.tried, route.view.launch_id)
            call.attempts += 1
            try:
                there = self._demand.elsewhere(home, call.chute_id)
                with self._router.using(route), there:
                    result = await self._try(call, reply, route)
            finally:
                self._queue.wake(call.chute_id, 1)
            if isinstance(result, Ending):
                return result
            call.last_error = result.error
            call.turned_down()
        raise _gave_up(call.last_error)

    async def _route(self, call: Call, home: str) -> Route:
        """Return a route with a free slot; a caller of a cold chute waits for one.

        So does one whose call could not be delivered, for the last instance is gone.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.cold_wait_s
        waited = False
        ways = [(one, prefix_of(one.chute, one.cord, call.body)) for one in call.choices]
        while True:
            found, one = await self._first(ways, call)
            if isinstance(found, Route):
                if one is not call.admitted:
                    call.aim(one)
                return found
            # A call that may have reached an instance never waits for another: its own work may
            # be what ends them.
            may_wait = waited or found is NoSlot.COLD
            if call.last_error is not None and (call.delivered or not may_wait):
                raise _gave_up(call.last_error)
            if loop.time() >= until or not may_wait:
                raise _no_slot(found, one.chute)
            waited = True
            ids = (one.chute.chute_id for one, _ in ways)
            with self._demand.waiting(home):
                await self._queue.wait(home, until - loop.time(), *(i for i in ids if i != home))

    async def _first(
        self, ways: list[tuple[Admitted, bytes]], call: Call
    ) -> tuple[Route | NoSlot, Admitted]:
        """Return the first choice that has a free slot, or why none has: a cold one may have soon.

        A cold chute that is passed over is wanted hot all the same.
        """
        why: tuple[NoSlot, Admitted] | None = None
        for one, prefix in ways:
            chute_id = one.chute.chute_id
            found: Route | NoSlot | None = None
            if prefix:
                found = self._router.preferred(chute_id, prefix, call.tried)
            if found is None:
                found = await self._router.obtain(chute_id, call.tried)
            if isinstance(found, Route):
                return found, one
            if found is NoSlot.COLD and len(ways) > 1:
                self._demand.missed(chute_id)
            if why is None or (found is NoSlot.COLD and why[0] is not NoSlot.COLD):
                why = found, one
        assert why is not None, "a call has one choice at least"
        return why

    async def _try(self, call: Call, reply: Reply, route: Route) -> Ending | Refusal:
        """Call one instance; a pooled connection that turns out dead is replaced once."""
        for fresh in (False, True):
            try:
                borrowed = await self._pool.borrow(route.view, fresh=fresh)
            except (Unavailable, ProtocolError) as error:
                return self._refused(call, route, error)
            result = await self._once(call, reply, route, borrowed)
            if result is not None:
                return result
        raise AssertionError("a fresh connection is never taken for a dead pooled one")

    async def _once(
        self, call: Call, reply: Reply, route: Route, borrowed: Borrowed
    ) -> Ending | Refusal | None:
        """Call over one connection; None if it was a pooled one that had died."""
        call.dispatch(route.view.launch_id, self._clock)
        exchange = Exchange(borrowed.connection, call, self._limits)
        try:
            try:
                head = await exchange.ask()
            except TimedOut as error:
                if error.code != PAID_TIME_OVER and call.fails_over:
                    return self._refused(call, route, error)
                if error.code != PAID_TIME_OVER:
                    route.failed(self._clock.monotonic_us())
                raise
            except (Unavailable, ProtocolError) as error:
                if borrowed.reused:
                    call.taken_back(fault=False)
                    return None
                return self._refused(call, route, error)
            if isinstance(head, FrameError):
                return self.refused(call, route, head)
            route.succeeded(call.answered(head.status, self._clock))
            try:
                return await self._carry(call, exchange, borrowed, head, reply)
            except (Unavailable, ProtocolError):
                route.failed(self._clock.monotonic_us())
                raise
        finally:
            exchange.end()
            if exchange.clean:
                self._pool.give_back(borrowed)
            else:
                borrowed.connection.abort()

    async def _carry(
        self,
        call: Call,
        exchange: Exchange,
        borrowed: Borrowed,
        head: ResponseHead,
        reply: Reply,
    ) -> Ending:
        """Pass on what an instance answers: a response, or a websocket's bytes both ways."""
        if call.upgrade is None or head.status != SWITCHING:
            return await exchange.stream(head, reply)
        return await Switched(
            borrowed.connection,
            call,
            call.upgrade.caller,
            reply,
            until=exchange.deadline,
            idle_s=self._limits.idle_timeout_s,
        ).run(head)

    def _refused(
        self, call: Call, route: Route, error: ChutesError, *, fault: bool = True
    ) -> Refusal:
        if fault:
            route.failed(self._clock.monotonic_us())
            call.launch_id = route.view.launch_id
        call.taken_back(fault=fault)
        return Refusal(error)


def _refusal(said: FrameError) -> ChutesError:
    if said.code in NO_FAULT:
        return _at_capacity()
    return ProtocolError("instance_failed", f"the instance refused the call: {said.code}")


def _chute_failed() -> ChutesError:
    return ProtocolError(
        "chute_error",
        "the chute failed before it answered",
        hint="the chute's owner finds the reason in its logs; a minute of failures an hour is free",
    )


def _gave_up(last: ChutesError | None) -> ChutesError:
    """Return what the caller gets to hear when every try has failed."""
    if isinstance(last, Exhausted):
        return last
    return ProtocolError(
        "instance_failed",
        "no instance gave an answer" + (f": {last.code}" if last else ""),
        hint="nothing was charged; try again",
    )


def _no_slot(why: NoSlot, chute: ChuteView) -> ChutesError:
    if why is NoSlot.FULL:
        return _at_capacity()
    if why is NoSlot.BROKEN:
        return Unavailable(
            "instances_failing",
            f"the instances of {chute.name} failed their last calls",
            hint="they are tried again within a minute",
        )
    return Unavailable(
        "no_instance",
        f"{chute.name} has no instance yet"
        + (f": {chute.cold_reason}" if chute.cold_reason else ""),
        hint="it is being started; call again, or see chutes warmup",
    )


def _at_capacity() -> Exhausted:
    return Exhausted("at_capacity", "all instances are at capacity", hint="try again in a moment")
