"""A gateway worker: one process, one event loop, one listening socket of the shared port.

Path: main process -> channel -> here -> Gateway and its data plane. Invariants: it serves only
while the channel is there, by the newest picture that it was told; without the main process it ends
at once, for nobody could tell it then that a key was revoked.
"""

import asyncio
import os
import random
import signal
import socket
from collections.abc import Mapping
from typing import Any

from loguru import logger

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError, Conflict, Unavailable
from chutes_core.base.logs import configure_logs
from chutes_core.validator.gateway.gateway import Gateway, Shared
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.plane.server import Plane
from chutes_core.validator.gateway.workers.asking import Asking
from chutes_core.validator.gateway.workers.channel import Channel, Kind, connect
from chutes_core.validator.gateway.workers.control import RemoteControl
from chutes_core.validator.gateway.workers.leases import launch_of
from chutes_core.validator.gateway.workers.picture import Picture
from chutes_core.validator.gateway.workers.purses import LeasedHolds
from chutes_core.validator.gateway.workers.rates import SharedBuckets
from chutes_core.validator.gateway.workers.setup import Setup, read_setup, tls_context
from chutes_core.validator.gateway.workers.slots import SharedRouter
from chutes_core.wire.http_server import BACKLOG

REPORT_S = 0.2
IDLE_REPORTS = 5  # what was not used for so many reports is given back
ORPHANED = 3  # exit status
REFUSED = 2


async def work(sock: socket.socket) -> int:
    """Serve until told to stop; return the process's exit status."""
    loop = asyncio.get_running_loop()
    worker = Worker()
    channel = await connect(sock, worker.take, _orphaned)
    worker.use(channel)
    loop.add_signal_handler(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the main process stops us
    try:
        await worker.run()
    except ChutesError as error:
        logger.error("gateway worker refused to start: {}", error)
        channel.send(
            Kind.FAILED, {"code": error.code, "message": error.message, "hint": error.hint}
        )
        return REFUSED
    finally:
        channel.gone = True  # what comes now is for nobody
        channel.close()
    return 0


def _orphaned() -> None:
    os._exit(ORPHANED)


class Worker:
    """What the process consists of; `take` gets every frame of the main process."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._picture = Picture()
        self._control = RemoteControl()
        self._told: asyncio.Future[Setup] = asyncio.get_running_loop().create_future()
        self._seen = asyncio.Event()
        self._stopping = asyncio.Event()
        self._plane: Plane | None = None

    def use(self, channel: Channel) -> None:
        """Speak over this channel."""
        self._channel = channel
        self._control.use(channel)
        self._asking = Asking(channel)
        self._holds = LeasedHolds(self._asking)
        self._buckets = SharedBuckets(self._asking, self._clock)
        self._router = SharedRouter(self._asking, clock=self._clock, rng=random.Random())

    def stop(self) -> None:
        """Take nothing new, finish what runs, end."""
        self._stopping.set()

    async def run(self) -> None:
        """Open, serve, report, close.

        Raises:
            ChutesError: it cannot serve as it was told.
        """
        setup = await self._told
        configure_logs(setup.log_level, as_json=setup.json_logs)
        tls = tls_context(setup.tls_certificate, setup.tls_key)
        self._journal = Journal(setup.journal, setup.worker)
        try:
            self._gateway = self._build(setup)
            if setup.access_log:
                self._gateway.log_calls()
            self._channel.send(Kind.HELLO, {"last": self._journal.last_sequence})
            await self._seen.wait()
            self._check_settled()
            plane = self._gateway.plane(
                setup.http, grace_s=setup.grace_s, proxies=setup.proxies, tls=tls
            )
            await self._serve(plane, setup)
            await self._gateway.close()
        finally:
            self._journal.close()

    def take(self, kind: Kind, stream: int, head: Mapping[str, Any], data: bytes) -> None:
        """Take a frame."""
        if kind is Kind.SETUP:
            self._told.set_result(read_setup(head))
        elif kind is Kind.PICTURE:
            self._show(head)
        elif kind is Kind.GRANT:
            self._granted(head)
        elif kind is Kind.TOKENS:
            self._buckets.granted(head)
        elif kind is Kind.RECALL:
            for purse in head["purses"]:
                self._give_back({purse: self._give_up(purse)})
            self._channel.send(Kind.RETURNED, {"id": head["id"]})
        elif kind is Kind.STOP:
            self.stop()
        else:
            self._control.took(kind, stream, head, data)

    # Inside.

    def _build(self, setup: Setup) -> Gateway:
        return Gateway(
            control=self._control,
            journal=self._journal,
            limits=setup.limits,
            domain=setup.domain,
            clock=self._clock,
            shared=Shared(self._holds, self._buckets, self._router, setup.workers),
        )

    def _check_settled(self) -> None:
        settled = self._picture.snapshot.drained.get(self._journal.worker, 0)
        if self._journal.last_sequence > settled:
            raise Conflict(
                "journal_unsettled",
                "the journal holds records that no picture shows",
                hint="they are settled first; the worker is started again",
            )

    async def _serve(self, plane: Plane, setup: Setup) -> None:
        listener = listen(setup.host, setup.port)
        self._plane = plane
        serving = asyncio.ensure_future(plane.serve([listener]))
        self._channel.send(Kind.READY, {})
        reporting = asyncio.ensure_future(self._report_again_and_again())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((serving, reporting, stopping), return_when=asyncio.FIRST_COMPLETED)
            plane.should_exit = True
            await serving
            if reporting.done():
                reporting.result()
        finally:
            listener.close()
            reporting.cancel()
            stopping.cancel()
            self._report()

    async def _report_again_and_again(self) -> None:
        while True:
            for _ in range(IDLE_REPORTS):
                self._report()
                await asyncio.sleep(REPORT_S)
            self._give_back(self._holds.idle() | self._router.idle())

    def _report(self) -> None:
        demand = {
            chute_id: (one.last_call_s, one.in_flight, one.waiting, one.waiting_since_s)
            for chute_id, one in self._gateway.demand.snapshot().items()
        }
        report = {
            "last": self._journal.last_sequence,
            "busy": self._router.busy(),
            "demand": demand,
            "stats": self._gateway.stats(),
            "counts": self._gateway.counts().said(),
        }
        self._channel.send(Kind.REPORT, report)

    def _show(self, changes: Mapping[str, Any]) -> None:
        snapshot = self._picture.apply(changes)
        self._gateway.swap(snapshot)
        self._seen.set()
        self._channel.send(Kind.SHOWN, {"version": changes["version"], "busy": self._router.busy()})
        settled = snapshot.drained.get(self._journal.worker, 0)
        asyncio.get_running_loop().run_in_executor(None, self._journal.discard, settled)

    def _granted(self, head: Mapping[str, Any]) -> None:
        purse, amount = head["purse"], head["amount"]
        launch_id = launch_of(purse)
        if launch_id is None:
            self._holds.granted(purse, amount)
        elif amount:
            self._router.granted(launch_id, amount)
        self._asking.answered(head)

    def _give_up(self, purse: str) -> int:
        launch_id = launch_of(purse)
        if launch_id is None:
            return self._holds.give_up(purse)
        return self._router.give_up(launch_id)

    def _give_back(self, given: Mapping[str, int]) -> None:
        purses = {purse: amount for purse, amount in given.items() if amount > 0}
        if purses:
            self._channel.send(Kind.RETURN, {"purses": purses})


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket of a port that other workers listen on, too.

    Raises:
        Unavailable: ``port_taken``.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise Unavailable(
            "port_taken", f"{host}:{port} cannot be bound: {error}", hint="choose another port"
        ) from error
    sock.setblocking(False)
    return sock
