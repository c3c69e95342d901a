"""The public port: four forms of request are invocations, all others are the control plane's.

Path: user -> front -> admission -> forward. Raw ASGI, since nothing between the socket and the
sealed connection may buffer. Invariants: every answer to an invocation carries its id, errors
included; an answer that broke off is never completed, so the server cuts the connection; a caller
who leaves stops the call at the instance.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Protocol

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError, Exhausted, Unauthenticated
from chutes_core.base.failures import FailedTries
from chutes_core.base.ids import new_id
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.domain.statuses import status_of
from chutes_core.validator.gateway.admission import Admitted, authenticate, callable_models
from chutes_core.validator.gateway.aliases import AliasCall, Choices, admit_all
from chutes_core.validator.gateway.asgi import AsgiApp, Receive, Scope, Send
from chutes_core.validator.gateway.asked import Request, head_of
from chutes_core.validator.gateway.body import Bodies, Room, model_of
from chutes_core.validator.gateway.buckets import Buckets
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.demand import Demand
from chutes_core.validator.gateway.forward import Forwarder
from chutes_core.validator.gateway.holds import Hold, Holds
from chutes_core.validator.gateway.reply import Reply
from chutes_core.validator.gateway.target import Target, target_of
from chutes_core.validator.gateway.usage import tail_for
from chutes_core.validator.gateway.websockets import (
    OpenWebsockets,
    check_carried,
    check_form,
    refuse_on_reference,
    upgrade_of,
)

CANCEL_AGAIN_S = 1.0


class JournalState(Protocol):
    """The part of the journal that front needs."""

    def check(self) -> None:
        """Raise Unavailable if calls cannot be recorded now."""
        ...


class Front:
    """An ASGI application; ``snapshot`` returns the current one, ``control`` takes the rest."""

    def __init__(
        self,
        *,
        control: AsgiApp,
        snapshot: Callable[[], Snapshot],
        forwarder: Forwarder,
        holds: Holds,
        buckets: Buckets,
        bodies: Bodies,
        demand: Demand,
        journal: JournalState,
        domain: str | None,
        failures: FailedTries,
        max_calls: int,
        websockets: OpenWebsockets,
        clock: Clock,
    ) -> None:
        self._control = control
        self._snapshot = snapshot
        self._forwarder = forwarder
        self._holds = holds
        self._buckets = buckets
        self._bodies = bodies
        self._demand = demand
        self._journal = journal
        self._domain = domain
        self._failures = failures
        self._max_calls = max_calls
        self._websockets = websockets
        self._clock = clock
        self.in_flight = 0
        self.refused: Counter[str] = Counter()  # errors that callers were told, by code
        self.idle = asyncio.Event()  # set while no call runs
        self.idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._control(scope, receive, send)
            return
        request = Request.of(scope)
        host = request.headers.get("host", "")
        target = target_of(request.method, request.path, host, self._domain)
        if target is None:
            await self._control(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse_on_reference(scope, receive, send)
        else:
            await self._answer(request, target, receive, send)

    async def _answer(self, request: Request, target: Target, receive: Receive, send: Send) -> None:
        invocation_id = new_id()
        reply = Reply(send, invocation_id, request.method)
        began_us = self._clock.monotonic_us()
        self.enter()
        try:
            answering = self._invoke(request, target, receive, reply, invocation_id)
            await self._said(answering, reply, began_us)
        finally:
            self.leave()

    def enter(self) -> None:
        """Count an answer that begins; `leave` in every case."""
        self.in_flight += 1
        if self.in_flight == 1:
            self.idle.clear()

    def leave(self) -> None:
        """Count an answer as ended."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()

    @property
    def full(self) -> bool:
        """Tell whether one more answer would be too many."""
        return self.in_flight >= self._max_calls

    async def resume(self, call: Call, reply: Reply, receive: Receive) -> None:
        """Go on with an admitted call whose first instance gave no answer; `enter` was called."""
        try:
            with self._demand.calling(call.chute_id):
                await self._said(self._run(call, reply, receive), reply, call.arrived_us)
        finally:
            call.hold.release()
            self.leave()

    async def say(self, error: ChutesError, reply: Reply, began_us: int) -> None:
        """Answer with an error."""

        async def raising() -> None:
            raise error

        await self._said(raising(), reply, began_us)

    async def _said(
        self, answering: Coroutine[None, None, None], reply: Reply, began_us: int
    ) -> None:
        """Wait for an answer; an error becomes one if nothing was sent before."""
        bound = logger.bind(invocation_id=reply.invocation_id)
        try:
            await answering
        except ChutesError as error:
            if status_of(error) >= 500:
                bound.bind(code=error.code).warning("Call failed")
            if not reply.started:
                self.refused[error.code] += 1
                await reply.error(error, self._clock.monotonic_us() - began_us)
        except Exception:  # noqa: BLE001 - the edge: whatever failed, the caller gets our form
            bound.exception("Call failed unexpectedly")
            if not reply.started:
                await reply.error(_internal(), self._clock.monotonic_us() - began_us)

    async def _invoke(
        self,
        request: Request,
        target: Target,
        receive: Receive,
        reply: Reply,
        invocation_id: str,
    ) -> None:
        if self.in_flight > self._max_calls:
            raise Exhausted("gateway_full", "the validator answers too many calls at once")
        snapshot = self._snapshot()
        key = self._authenticate(snapshot, request)
        per_minute = key.calls_per_minute
        reply.standing = await self._buckets.obtain(key.key_id, calls_per_minute=per_minute)
        upgrade = upgrade_of(request.scope)
        if upgrade is not None:
            request = replace(request, upgrade=upgrade)
            check_form(target)
        if target.form == "models":
            await reply.json(200, _model_list(callable_models(snapshot, key)))
            return
        with self._bodies.room() as room, self._websockets.of(key.key_id, request.upgrade):
            call = await self._admit(snapshot, key, request, target, receive, room, invocation_id)
            if call is None:
                return
            try:
                call.tail, call.upgrade = tail_for(call.admitted.cord), request.upgrade
                call.standing, call.arrived_us = reply.standing, self._clock.monotonic_us()
                with self._demand.calling(call.chute_id):
                    self._journal.check()
                    await self._run(call, reply, receive)
            finally:
                call.hold.release()

    def _authenticate(self, snapshot: Snapshot, request: Request) -> ApiKey:
        """Return the caller's key; a failure counts against the address that it came from."""
        try:
            return authenticate(snapshot, request.headers, now_s=self._clock.now_s())
        except Unauthenticated:
            self._failures.count((request.scope.get("client") or (None,))[0])
            raise

    async def _admit(
        self,
        snapshot: Snapshot,
        key: ApiKey,
        request: Request,
        target: Target,
        receive: Receive,
        room: Room,
        invocation_id: str,
    ) -> Call | None:
        """Return the admitted call with its body; None if the caller left before all came.

        A call by model is admitted once its body is there, by the snapshot of that moment (a hold
        is only right against the current one); others before it is read.
        """
        body: bytes | None = None
        model: str | None = None
        if target.form == "model":
            body = await self._body(request, receive, room)
            if body is None:
                return None
            model = model_of(body)
            snapshot = self._snapshot()
            key = authenticate(snapshot, request.headers, now_s=self._clock.now_s())
        choices = admit_all(snapshot, key, target, method=request.method, model=model)
        if request.upgrade is not None:
            check_carried(choices)
            body = b""
        payer = choices.calls[0].payer
        hold = await self._holds.obtain(payer, choices.rate, key)
        try:
            if body is None:
                body = await self._body(request, receive, room)
            if body is None:
                hold.release()
                return None
            return _call(request, target, choices, invocation_id, body, hold)
        except BaseException:
            hold.release()
            raise

    async def _body(self, request: Request, receive: Receive, room: Room) -> bytes | None:
        room.check(request.headers.get("content-length"))
        return await room.read(receive)

    async def _run(self, call: Call, reply: Reply, receive: Receive) -> None:
        """Run a call until it ends or its caller leaves."""
        work = asyncio.ensure_future(self._forwarder.run(call, reply))
        upgrade = call.upgrade
        leaving = asyncio.ensure_future(upgrade.caller.left() if upgrade else _left(receive))
        try:
            await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
            call.caller_left = not work.done()
        finally:
            leaving.cancel()
            while not work.done():  # whatever a wait inside of it made of the last cancellation
                work.cancel()
                await asyncio.wait((work,), timeout=CANCEL_AGAIN_S)
        if not work.cancelled():
            work.result()


def _call(
    request: Request,
    target: Target,
    choices: Choices,
    invocation_id: str,
    body: bytes,
    hold: Hold,
) -> Call:
    def encode(admitted: Admitted, said: bytes) -> bytes:
        head = head_of(request, target, admitted, invocation_id, said)
        return head.model_dump_json().encode()

    if choices.aliased:
        by_model = target.form == "model"
        return AliasCall(invocation_id, choices, body, hold, encode=encode, by_model=by_model)
    admitted = choices.calls[0]
    return Call(invocation_id, admitted, encode(admitted, body), body, hold)


def _internal() -> ChutesError:
    return ChutesError("internal", "the validator failed", hint="its operator finds why in its log")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _model_list(models: list[str]) -> dict[str, object]:
    data = [{"id": m, "object": "model", "created": 0, "owned_by": "chutes"} for m in models]
    return {"object": "list", "data": data}
