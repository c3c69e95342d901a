"""Control of one attested instance over its sealed connection: probe, start, renew, stop, jobs.

Each function opens a connection under the proven root (generation 1) through the miner's relay,
says one thing, and closes. Invariant: nothing here runs before the proof, for root 1 is needed.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from chutes_core.base.errors import ChutesError, ProtocolError
from chutes_core.wire.connection import SealedConnection, expect, open_connection
from chutes_core.wire.frames import Frame, FrameKind
from chutes_core.wire.job import JobOrder, JobQuery, JobReport, PortOrder
from chutes_core.wire.launch import FrameError, Renewal, Started, StartOrder, StopOrder
from chutes_core.wire.sealing import PROVEN

CONTROL_TIMEOUT_S = 10.0
_ModelT = TypeVar("_ModelT", bound=BaseModel)


class InstanceRefused(ChutesError):
    """The instance answered with an ERROR frame; code, message and hint are the instance's."""


@dataclass(frozen=True)
class InstanceAddress:
    """How to reach one attested instance."""

    launch_id: str
    host: str
    port: int
    ticket: bytes = field(repr=False)
    root: bytes = field(repr=False)


async def probe(address: InstanceAddress) -> None:
    """Check that the instance answers under the proven keys.

    Raises:
        Unavailable, TimedOut, ProtocolError: it does not.
    """
    payload = secrets.token_bytes(8)
    async with _connection(address) as connection:
        await connection.send(FrameKind.PING, payload)
        frame = expect(await connection.receive(CONTROL_TIMEOUT_S), FrameKind.PONG)
    if frame.payload != payload:
        raise ProtocolError("bad_pong", "the instance echoed something else")


async def start(address: InstanceAddress, order: StartOrder, *, timeout_s: float) -> Started:
    """Hand over code, environment and secrets; wait until the start-up hooks have run.

    Raises:
        InstanceRefused: loading or a hook failed (the message holds the traceback's end).
        Unavailable, TimedOut, ProtocolError: the connection failed.
    """
    frame = await _say(address, FrameKind.START, order, FrameKind.STARTED, timeout_s)
    return _read(frame, Started)


async def renew(address: InstanceAddress, lease_until_s: int) -> None:
    """Prolong the instance's launch lease."""
    order = Renewal(lease_until_s=lease_until_s)
    await _say(address, FrameKind.RENEW, order, FrameKind.OK, CONTROL_TIMEOUT_S)


async def stop(address: InstanceAddress, *, reason: str, grace_s: int) -> None:
    """Tell the instance to finish its calls within ``grace_s`` seconds and to exit."""
    order = StopOrder(reason=reason, grace_s=grace_s)
    await _say(address, FrameKind.STOP, order, FrameKind.OK, CONTROL_TIMEOUT_S)


async def run_job(address: InstanceAddress, order: JobOrder) -> None:
    """Hand a job over; the same order again changes nothing.

    Raises:
        InstanceRefused: the chute has no such job, or the instance has another one.
        Unavailable, TimedOut, ProtocolError: the connection failed.
    """
    await _say(address, FrameKind.JOB, order, FrameKind.OK, CONTROL_TIMEOUT_S)


async def ask_job(address: InstanceAddress, job_id: str) -> JobReport:
    """Return how the instance's job stands."""
    query = JobQuery(job_id=job_id)
    frame = await _say(address, FrameKind.JOB_ASK, query, FrameKind.JOB_TOLD, CONTROL_TIMEOUT_S)
    return _read(frame, JobReport)


async def open_port(address: InstanceAddress, order: PortOrder) -> SealedConnection:
    """Return a connection that is a byte stream to a port of the instance's job.

    Raises:
        InstanceRefused: there is no such port, nothing listens, or the job has ended.
        Unavailable, TimedOut, ProtocolError: the connection failed.
    """
    async with _opening(address) as connection:
        await connection.send(FrameKind.PORT, order.model_dump_json().encode())
        frame = expect(await connection.receive(CONTROL_TIMEOUT_S), FrameKind.OK, FrameKind.ERROR)
        if frame.kind is FrameKind.ERROR:
            raise _refused(frame)
        return connection


async def _say(
    address: InstanceAddress, kind: FrameKind, order: BaseModel, answer: FrameKind, timeout_s: float
) -> Frame:
    async with _connection(address) as connection:
        await connection.send(kind, order.model_dump_json().encode())
        frame = expect(await connection.receive(timeout_s), answer, FrameKind.ERROR)
    if frame.kind is FrameKind.ERROR:
        raise _refused(frame)
    return frame


def _refused(frame: Frame) -> InstanceRefused:
    error = _read(frame, FrameError)
    return InstanceRefused(error.code, error.message, hint=error.hint)


@asynccontextmanager
async def _connection(address: InstanceAddress) -> AsyncIterator[SealedConnection]:
    async with _opening(address) as connection:
        try:
            yield connection
        finally:
            connection.abort()


@asynccontextmanager
async def _opening(address: InstanceAddress) -> AsyncIterator[SealedConnection]:
    """Open a connection; it stays open unless what is done with it fails."""
    connection = await open_connection(
        address.host,
        address.port,
        root=address.root,
        ticket=address.ticket,
        launch_id=address.launch_id,
        generation=PROVEN,
    )
    try:
        yield connection
    except BaseException:
        connection.abort()
        raise


def _read(frame: Frame, model: type[_ModelT]) -> _ModelT:
    try:
        return model.model_validate_json(frame.payload)
    except ValidationError as error:
        raise ProtocolError("bad_frame", f"{frame.kind.name} is not a {model.__name__}") from error
