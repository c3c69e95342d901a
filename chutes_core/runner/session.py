"""What an instance does with the frames of one connection.

Path: server accepts -> `Session.run` -> proof, loader, executor, lifecycle.
Invariant: before the proof a connection can only prove; afterwards it can do anything but change
the keys, and a HELLO makes it one that proves again. Whatever goes wrong ends this connection
alone.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from chutes_core.base.errors import (
    ChutesError,
    Conflict,
    Invalid,
    NotFound,
    ProtocolError,
    Unavailable,
)
from chutes_core.runner.executor import Executor
from chutes_core.runner.identity import Identity
from chutes_core.runner.jobs import JobDesk
from chutes_core.runner.lifecycle import Ending, ExitCode, Lifecycle
from chutes_core.runner.link import Link
from chutes_core.runner.loader import ChuteHost
from chutes_core.runner.orders import parse
from chutes_core.runner.ports import PortDesk
from chutes_core.runner.proof import ProofAttempt, ProofGate
from chutes_core.wire.frames import Frame, FrameKind, pack_leg, unpack_leg
from chutes_core.wire.job import JobFileQuery, JobOrder, JobQuery, PortOrder
from chutes_core.wire.launch import Renewal, StartOrder, StopOrder

# errors that show a peer without our keys, or none at all: there is nobody to answer
_UNANSWERED = frozenset(("bad_seal", "silent_peer", "connection_lost"))


@dataclass(frozen=True)
class Instance:
    """What all connections of this process share."""

    identity: Identity
    gate: ProofGate
    host: ChuteHost
    executor: Executor
    lifecycle: Lifecycle
    jobs: JobDesk
    ports: PortDesk


class ProofSession:
    """One proof attempt: on a connection of generation 0, or ``again`` on one of generation 1."""

    def __init__(self, instance: Instance, link: Link, *, again: bool = False) -> None:
        self._instance = instance
        self._link = link
        self._again = again
        self._attempt: ProofAttempt | None = None
        self._tasks: set[asyncio.Future[None]] = set()

    async def run(self, first: Frame | None = None) -> None:
        """Serve until REKEY (END where it proves again), an error, or the peer's end.

        No prover is left behind.

        Args:
            first: a frame that was read before.

        Raises:
            ChutesError: what ended the connection, already sent as ERROR where anyone can read it.
        """
        try:
            if first is not None:
                await self._take(first)
            await self._serve()
        finally:
            if self._attempt is not None:
                await self._instance.gate.end(self._attempt)  # upon which our tasks end too
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self) -> None:
        reading = asyncio.ensure_future(self._link.next_frame())
        try:
            while True:
                waiting: set[asyncio.Future[Any]] = {reading, *self._tasks}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in self._tasks if task.done()]:
                    self._tasks.discard(task)
                    task.result()
                if not reading.done():
                    continue
                frame = reading.result()
                if frame is None or await self._take(frame):
                    return
                reading = asyncio.ensure_future(self._link.next_frame())
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled():
                reading.exception()  # seen: another failure came first

    async def _take(self, frame: Frame) -> bool:
        """Act on one frame; True when the proof is done."""
        if frame.kind is FrameKind.PING:
            await self._link.send((FrameKind.PONG, frame.payload))
        elif frame.kind is FrameKind.HELLO and self._attempt is None:
            self._attempt = await self._instance.gate.begin(again=self._again)
            self._spawn(self._warm(self._attempt))
        elif frame.kind is FrameKind.LEG and self._attempt is not None:
            self._spawn(self._leg(self._attempt, frame))
        elif frame.kind is FrameKind.REKEY and self._attempt is not None and not self._again:
            await self._attempt.rekey()
            await self._link.send((FrameKind.REKEYED, b""))
            return True
        elif frame.kind is FrameKind.END and self._attempt is not None and self._again:
            await self._attempt.finish()
            await self._link.send((FrameKind.OK, b""))
            return True
        else:
            raise _unexpected(frame)
        return False

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    async def _warm(self, attempt: ProofAttempt) -> None:
        await self._link.send_message(FrameKind.WARM, await attempt.warm())

    async def _leg(self, attempt: ProofAttempt, frame: Frame) -> None:
        gpu, leg, body = unpack_leg(frame.payload)
        digest = await attempt.answer(gpu, leg, body)
        await self._link.send((FrameKind.ANSWER, pack_leg(gpu, leg, digest)))


class ServingSession:
    """A connection of generation 1: control orders and calls, one after another."""

    def __init__(self, instance: Instance, link: Link) -> None:
        self._instance = instance
        self._link = link

    async def run(self) -> None:
        """Serve until the peer's end or an error.

        Raises:
            ChutesError: what ended the connection.
        """
        while (frame := await self._link.next_frame()) is not None:
            if frame.kind is FrameKind.CALL:
                if not await self._instance.executor.run(self._link, frame):
                    return
            elif frame.kind is FrameKind.HELLO:
                await ProofSession(self._instance, self._link, again=True).run(frame)
                return
            elif frame.kind is FrameKind.PORT:
                if await self._instance.ports.serve(self._link, parse(PortOrder, frame)):
                    return
            else:
                await self._control(frame)

    async def _control(self, frame: Frame) -> None:
        if frame.kind is FrameKind.PING:
            await self._link.send((FrameKind.PONG, frame.payload))
        elif frame.kind is FrameKind.START:
            await self._start(parse(StartOrder, frame))
        elif frame.kind is FrameKind.RENEW:
            self._instance.lifecycle.lease.renew(parse(Renewal, frame).lease_until_s)
            await self._link.send((FrameKind.OK, b""))
        elif frame.kind is FrameKind.STOP:
            order = parse(StopOrder, frame)
            await self._link.send((FrameKind.OK, b""))
            reason = f"the validator stopped it: {order.reason}"
            self._instance.lifecycle.end(Ending(ExitCode.STOPPED, reason, order.grace_s))
        else:
            await self._job(frame)

    async def _job(self, frame: Frame) -> None:
        """Answer what concerns the instance's job."""
        jobs, link = self._instance.jobs, self._link
        try:
            if frame.kind is FrameKind.JOB:
                jobs.start(parse(JobOrder, frame))
                await link.send((FrameKind.OK, b""))
            elif frame.kind is FrameKind.JOB_ASK:
                report = jobs.report(parse(JobQuery, frame).job_id)
                await link.send_message(FrameKind.JOB_TOLD, report)
            elif frame.kind is FrameKind.JOB_FILE:
                await jobs.send_file(link, parse(JobFileQuery, frame))
            else:
                raise _unexpected(frame)
        except (NotFound, Conflict, Invalid) as refusal:
            await link.send_error(refusal)

    async def _start(self, order: StartOrder) -> None:
        try:
            if order.launch_id != self._instance.identity.launch_id:
                raise Conflict("other_launch", "the order is for another launch")
            if self._instance.lifecycle.ending:
                raise Unavailable("draining", "this instance is ending")
            self._instance.lifecycle.lease.begin(order.lease_until_s)
            started = await self._instance.host.start(order)
        except ChutesError as error:
            await self._link.send_error(error)
            return
        await self._link.send_message(FrameKind.STARTED, started)


async def serve_link(instance: Instance, link: Link, *, proven: bool) -> str:
    """Serve one accepted connection to its end; why it ended, empty where all went well."""
    session = (ServingSession if proven else ProofSession)(instance, link)
    try:
        await session.run()
    except ChutesError as error:
        if error.code not in _UNANSWERED:
            with contextlib.suppress(Unavailable):
                await link.send_error(error)
        return str(error)
    return ""


def _unexpected(frame: Frame) -> ProtocolError:
    return ProtocolError("unexpected_frame", f"{frame.kind.name} has no place here")
