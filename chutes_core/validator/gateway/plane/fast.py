"""Which requests are ordinary calls, and what is asked before one is dispatched.

Path: http -> fast -> fast_call -> link -> relay. It takes a call that is whole, admitted, and finds
an instance with a free slot and an idle connection; whatever else comes is the reference's (bridge,
front). Invariant: a request that is not taken leaves nothing behind, and the calls that end in one
turn of the loop are recorded in one write, before the last byte of any leaves.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from chutes_core.base.errors import ChutesError
from chutes_core.validator.gateway.affinity import prefix_of
from chutes_core.validator.gateway.body import check_arguments, model_of
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.plane.answers import Answers
from chutes_core.validator.gateway.plane.fast_call import FastCall
from chutes_core.validator.gateway.plane.fresh import FreshIds
from chutes_core.validator.gateway.plane.parts import Parts
from chutes_core.validator.gateway.plane.plan import Plan
from chutes_core.validator.gateway.plane.request import SMALL_BYTES, Request
from chutes_core.validator.gateway.pool import Borrowed
from chutes_core.validator.gateway.routing import NoSlot, Route
from chutes_core.validator.gateway.usage import PATHS, Tail

if TYPE_CHECKING:
    from chutes_core.validator.gateway.plane.http import Connection


def _internal() -> ChutesError:
    hint = "its operator finds why in its log"
    return ChutesError("internal", "the validator failed to record the call", hint=hint)


def _each(calls: list[FastCall], act: Callable[[FastCall], None]) -> None:
    """Act on every call, whatever becomes of the others."""
    for call in calls:
        try:
            act(call)
        except Exception:  # noqa: BLE001 - the edge: one call's failure is not the next one's
            logger.exception("A call did not end as it should")
            call.drop()


class FastPath:
    """Begins fast calls."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.answers = Answers()
        self._fresh_id = FreshIds()
        self._ended: list[FastCall] = []

    def ended(self, call: FastCall, loop: asyncio.AbstractEventLoop) -> None:
        """Have a call recorded with all others that end in this turn of the loop."""
        if not self._ended:
            loop.call_soon(self._record_ended)
        self._ended.append(call)

    def _record_ended(self) -> None:
        """Write the records of calls that are whole, in one write; then their answers end."""
        calls, self._ended = self._ended, []
        try:
            self.parts.metering.record_all([call.ending for call in calls])
        except ChutesError as error:
            why = error
            _each(calls, lambda call: call.unrecorded(why))
        except Exception:  # noqa: BLE001 - the edge: what is not recorded must not be whole
            logger.exception("Ended calls could not be recorded")
            _each(calls, lambda call: call.unrecorded(_internal()))
        else:
            _each(calls, FastCall.complete)

    def is_call(self, request: Request) -> bool:
        """Tell whether a request is an invocation, whoever serves it."""
        return self._plan(request).target is not None

    def begin(self, connection: "Connection", request: Request) -> bool:
        """Take a request if it is an ordinary call; False leaves everything as it was."""
        plan = request.shape.plan
        if not isinstance(plan, Plan):
            plan = self._plan(request)
        if not plan.served or not request.complete or request.size > SMALL_BYTES:
            return False
        try:
            prepared = self._prepare(plan, request)
        except ChutesError:
            return False  # the reference says it
        if prepared is None:
            return False
        call, route, borrowed = prepared
        request.chunks = []
        FastCall(self, connection, request, call, route, borrowed).begin(
            plan.paid_s(call, self.parts.limits.max_call_s)
        )
        return True

    def _plan(self, request: Request) -> Plan:
        shape = request.shape
        plan = shape.plan
        if not isinstance(plan, Plan):
            plan = shape.plan = Plan(shape, self.parts.domain)
        return plan

    def _prepare(self, plan: Plan, request: Request) -> tuple[Call, Route, Borrowed] | None:
        """Return the admitted call, its route and its connection; None without these two.

        Raises:
            ChutesError: it may not be made; nothing has been counted.
        """
        parts, body = self.parts, request.body()
        form = plan.form
        model = model_of(body) if form == "model" else None
        admitted = plan.admitted(parts.snapshot(), parts.clock, model)
        if form == "cord":
            check_arguments(body, plan.content_type)
        invocation_id = self._fresh_id()
        head = plan.head(admitted, invocation_id, len(body))
        if parts.front.full or not parts.bodies.fits(len(body)):
            return None
        parts.journal.check()
        chute, key = admitted.chute, admitted.key
        route: Route | NoSlot | None = None
        if chute.standard_template is not None and (
            prefix := prefix_of(chute, admitted.cord, body)
        ):
            route = parts.router.preferred(chute.chute_id, prefix)
        if route is None:
            route = parts.router.choose(chute.chute_id)
        if not isinstance(route, Route):
            return None
        borrowed = parts.pool.idle(route.view.launch_id)
        if borrowed is None:
            return None
        hold = None
        try:
            hold = parts.holds.open(admitted.payer, chute.rate, key)
            standing = parts.buckets.take(  # the last: counts
                key.key_id, calls_per_minute=key.calls_per_minute
            )
        except BaseException:
            if hold is not None:
                hold.release()
            parts.pool.give_back(borrowed)
            raise
        call = Call(invocation_id, admitted, head, body, hold)
        call.standing = standing
        if admitted.cord.public_api_path in PATHS:
            call.tail = Tail()
        return call, route, borrowed
