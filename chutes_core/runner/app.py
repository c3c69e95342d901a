"""One instance from listening to exit: constructs, wires, and ends in order.

Path: `__main__` -> `run`: the main thread gives itself to the chute's loop, the session thread
runs `_session`. Invariant: on every way out the provers are dead, running calls had their grace,
shutdown hooks had their time, and the process exits even where user code never lets go.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import TextIO

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.executor import Executor
from chutes_core.runner.identity import Identity
from chutes_core.runner.jobs import JobDesk
from chutes_core.runner.lifecycle import Ending, ExitCode, Lease, Lifecycle
from chutes_core.runner.loader import ChuteHost
from chutes_core.runner.ports import PortDesk
from chutes_core.runner.proof import ProofGate
from chutes_core.runner.prover import WaitingProvers
from chutes_core.runner.server import Listener
from chutes_core.runner.session import Instance
from chutes_core.runner.settings import RunnerSettings
from chutes_core.runner.standby import StandBy

# After a signal: 3 s of grace by default, CANCEL_S, these hooks and the guard are under 10 s,
# which is what container engines wait before they kill.
SIGNAL_HOOKS_S = 3.0
EXIT_GUARD_S = 2.0
_LOG = logging.getLogger("chutes_core.runner")


def run(
    clock: Clock,
    ready: TextIO,
    *,
    environ: MutableMapping[str, str] = os.environ,
    stand_by: StandBy | None = None,
) -> int:
    """Run one instance on the calling (main) thread; the exit status.

    Args:
        environ: what the miner gave; with ``stand_by`` it comes later.
        stand_by: what is made ready before.
        clock: leases and durations.
        ready: receives the ready line and is then closed.
    """
    chute_loop = ChuteLoop()
    signals = _signal_socket()
    status: list[int] = [ExitCode.CRASHED]

    async def launched() -> int:
        provers = WaitingProvers()
        try:
            if stand_by and not await stand_by.order(chute_loop, signals, provers, environ):
                return ExitCode.STOPPED
            settings = RunnerSettings.load(environ)
        except ChutesError as error:
            _LOG.error("%s", error)
            return ExitCode.BAD_SETTINGS
        return await _session(settings, clock, chute_loop, ready, signals, provers)

    def session() -> None:
        try:
            status[0] = asyncio.run(launched())
        finally:
            _guard_exit(lambda: status[0])
            chute_loop.stop()

    thread = threading.Thread(target=session, name="session", daemon=True)
    thread.start()
    chute_loop.run()
    thread.join()
    return status[0]


async def _session(
    settings: RunnerSettings,
    clock: Clock,
    chute_loop: ChuteLoop,
    ready: TextIO,
    signals: socket.socket,
    provers: WaitingProvers,
) -> int:
    lifecycle = Lifecycle(Lease(settings.first_lease_s, clock))
    _watch_signals(signals, lifecycle, settings.sigterm_grace_s)
    identity = Identity(settings.launch_id, settings.validator_public_key)
    executor = Executor(chute_loop, clock)
    host = ChuteHost(chute_loop, executor, clock)
    jobs = JobDesk(chute_loop, host.jobs, clock)
    gate = ProofGate(settings, identity, provers)
    ports = PortDesk(jobs)
    instance = Instance(identity, gate, host, executor, lifecycle, jobs, ports)
    listener = Listener(instance, settings.max_connections)
    try:
        port = ports.own_port = await listener.listen(settings.host, settings.port)
    except OSError as error:
        _LOG.error("cannot listen on %s:%s: %s", settings.host, settings.port, error)
        return ExitCode.CANNOT_LISTEN
    _announce(settings, ready, port, identity.public_key)
    host.prepare()
    ending = await lifecycle.until_end()
    await _wind_down(settings, ending, instance, listener)
    return ending.code


async def _wind_down(
    settings: RunnerSettings, ending: Ending, instance: Instance, listener: Listener
) -> None:
    _LOG.warning("ending with status %d: %s", ending.code, ending.reason)
    await instance.gate.close()
    await instance.jobs.close()
    await instance.executor.drain(ending.grace_s)
    try:
        await instance.host.shutdown(min(settings.shutdown_hooks_s, ending.hooks_s))
    except Unavailable as error:
        _LOG.error("%s", error)
    await listener.close()


def _announce(settings: RunnerSettings, ready: TextIO, port: int, public_key: str) -> None:
    """Say, only now that it listens, where; in the file first, whole or not at all."""
    line = json.dumps({"port": port, "public_key": public_key}) + "\n"
    if settings.ready_file is not None:
        partial = settings.ready_file.with_name(settings.ready_file.name + ".partial")
        partial.write_text(line)
        partial.replace(settings.ready_file)
    try:
        ready.write(line)
        ready.close()
    except BrokenPipeError:
        _LOG.info("nobody reads the ready line")


def _signal_socket() -> socket.socket:
    """Return a socket that gets a byte for each SIGTERM or SIGINT, even while user code blocks.

    CPython writes it from the signal handler itself; a Python-level handler would have to wait
    until the main thread runs Python again.
    """
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    _keep_from_children()
    return reading


def _keep_from_children() -> None:
    """Let children that user code forks have default signals: theirs are not our end.

    Blocked across the fork, for a signal may come before the child has dropped our handlers.
    """
    ours = {signal.SIGTERM, signal.SIGINT}
    before = threading.local()

    def block() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ours)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def reset() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=reset)


def _watch_signals(signals: socket.socket, lifecycle: Lifecycle, grace_s: float) -> None:
    def arrived() -> None:
        numbers = set(signals.recv(64))
        for number in numbers & {signal.SIGTERM, signal.SIGINT}:
            name = signal.Signals(number).name
            lifecycle.end(Ending(ExitCode.STOPPED, f"{name} came", grace_s, SIGNAL_HOOKS_S))

    asyncio.get_running_loop().add_reader(signals, arrived)


def _guard_exit(status: Callable[[], int]) -> None:
    """See to it that the process is gone in EXIT_GUARD_S, whatever user code still does."""

    def end() -> None:
        sys.stderr.flush()
        os._exit(status())

    guard = threading.Timer(EXIT_GUARD_S, end)
    guard.daemon = True
    guard.start()
