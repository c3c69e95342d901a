"""From settings to a running validator, and in order to its end.

Invariant of the end: first no new calls, then the calls in flight, then the loops, then the journal
is settled, then the store is closed. Invariant of the start: what a killed process left is settled
before the first new call is taken.
"""

import asyncio
import json
import os
import socket
from pathlib import Path

from loguru import logger

from chutes_core.base.clock import SystemClock
from chutes_core.base.compiled import check
from chutes_core.base.errors import Conflict, Forbidden, Unavailable
from chutes_core.base.latency import leave_alone
from chutes_core.base.loops import Loops
from chutes_core.chain.client import ChainClient
from chutes_core.chain.keys import load_neuron_keys
from chutes_core.validator.app import Validator, build
from chutes_core.validator.domain.deposits import LOCK_S
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.workers.crew import Crew
from chutes_core.validator.loops import commit_url, start_loops
from chutes_core.validator.metrics import MetricsDoor
from chutes_core.validator.server import OLD_WORKERS_S, bind, bind_shared, server
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.wiring.ground import Ground
from chutes_core.wire.peers import SignedClient


async def run(settings: ValidatorSettings, stop: asyncio.Event) -> None:
    """Run the validator until ``stop`` is set.

    Raises:
        ChutesError: it cannot start as it is configured; the code says why.
    """
    logger.info("calls run through code that is {}", "compiled" if check() else "interpreted")
    settings.check_binding()
    keys = load_neuron_keys(
        settings.wallet_path,
        settings.wallet_name,
        settings.hotkey,
        allow_coldkey=settings.allow_coldkey,
    )
    chain = await asyncio.to_thread(ChainClient.connect, settings.chain_url, settings.netuid)
    try:
        _check_devnet_only(settings, chain)
        bound = bind if settings.gateway_workers == 1 else bind_shared
        sock = await asyncio.to_thread(bound, settings.host, settings.port)
        try:
            url = settings.public_url or _url_of(sock.getsockname(), settings)
            async with SignedClient(keys.hotkey) as client:
                ground = Ground(settings, keys, chain, client, SystemClock(), url)
                await _live(build(ground), sock, stop)
        finally:
            sock.close()
    finally:
        chain.close()


async def _live(validator: Validator, sock: socket.socket, stop: asyncio.Event) -> None:
    serving = server(validator.gateway, validator.ground.settings)
    loops = Loops(validator.health.note)
    metrics = _metrics(validator)
    task: asyncio.Task[None] | None = None
    try:
        await _begin(validator)
        leave_alone()
        metrics.open()
        task = asyncio.create_task(serving.serve(sockets=[sock]))
        start_loops(loops, validator)
        if isinstance(serving, Crew):
            await _first(task, stop, serving.ready)
        if not (stop.is_set() or task.done()):
            _announce(validator)
        await _first(task, stop)
    finally:
        await asyncio.to_thread(validator.images.close)
        validator.bell.close()
        validator.jobs.reach.close()
        serving.should_exit = True
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)
        await metrics.close()
        await _end(validator, loops)


async def _adopt(validator: Validator) -> None:
    """Take over the journals of workers of an earlier run, once those have ended."""
    until = asyncio.get_running_loop().time() + OLD_WORKERS_S
    while True:
        try:
            await asyncio.to_thread(validator.journals.adopt)
        except Conflict:
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(0.1)
        else:
            return


def _metrics(validator: Validator) -> MetricsDoor:
    """Return the door for metrics, with what is counted in this process."""
    settings, gateway = validator.ground.settings, validator.gateway
    if isinstance(gateway, Gateway) and settings.access_log:
        gateway.log_calls()
    return MetricsDoor(settings.metrics_port, [validator.health.metrics, gateway.metrics])


async def _begin(validator: Validator) -> None:
    await validator.network.refresh()
    await _adopt(validator)
    await asyncio.to_thread(validator.journals.settle, validator.settlement.drain)
    await asyncio.to_thread(validator.images.resume)
    await asyncio.to_thread(validator.jobs.endings.resume)
    kept = await validator.keeper.resume()
    await validator.pictures.refresh()
    ground = validator.ground
    try:
        await commit_url(validator)
    except Unavailable as error:  # an extrinsic of the former process is in flight: a loop goes on
        logger.warning("the validator's URL is not committed yet", code=error.code)
    logger.info("validator started", url=ground.public_url, instances_kept=kept)


async def _end(validator: Validator, loops: Loops) -> None:
    await loops.close()
    await validator.jobs.conductor.close()
    await validator.lifecycle.close()
    validator.attestor.close()
    await validator.gateway.close()
    # What still waits in a thread waits for the chain: cut it off, so that nobody writes later.
    await asyncio.to_thread(validator.ground.chain.close)
    await asyncio.to_thread(validator.watcher.close)
    await asyncio.get_running_loop().shutdown_default_executor()
    validator.journals.settle(validator.settlement.drain)
    validator.journals.close()
    validator.store.close()
    logger.info("validator stopped")


def _announce(validator: Validator) -> None:
    """Write the ready file, for whoever started this process."""
    ground = validator.ground
    if ground.settings.ready_file is not None:
        facts = {"url": ground.public_url, "hotkey": ground.keys.hotkey_ss58}
        _write_atomically(ground.settings.ready_file, json.dumps(facts))


def _check_devnet_only(settings: ValidatorSettings, chain: ChainClient) -> None:
    """Refuse everything that counts on a devnet alone.

    Raises:
        Forbidden: ``devnet_only``.
    """
    asked = {
        "profile=test": settings.profile == "test",
        "runtime=process": settings.runtime == "process",
        "allow_coldkey": settings.allow_coldkey,
        "deposit_lock_s": settings.deposit_lock_s < LOCK_S,
    }
    wrong = [name for name, is_asked in asked.items() if is_asked]
    if wrong and not chain.is_devnet:
        raise Forbidden(
            "devnet_only",
            f"{', '.join(wrong)}: accepted on a devnet only, and this chain is none",
            hint="remove these settings, or point chain_url to a local devnet",
        )


async def _first(task: "asyncio.Task[None]", *events: asyncio.Event) -> None:
    """Wait until the server ends by itself or one of the events is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait({task, *waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
    if task.done():
        task.result()


def _url_of(address: tuple[str, int], settings: ValidatorSettings) -> str:
    scheme = "http" if settings.tls_certificate is None else "https"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{scheme}://{host}:{address[1]}"


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
