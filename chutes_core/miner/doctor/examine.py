"""The doctor's round: every check in the order in which an operator would repair things.

Path: `python neurons/miner.py doctor` -> here. Invariant: a check that cannot be made because an
earlier one failed says so and is no failure of its own; no check outlives `CHECK_S`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from chutes_core.base.errors import TimedOut
from chutes_core.engine.connect import Engine, connect
from chutes_core.engine.firewall import Firewall
from chutes_core.miner.app import Connect
from chutes_core.miner.chain_view import Chain
from chutes_core.miner.doctor import chain as chain_checks
from chutes_core.miner.doctor import gpus as gpu_checks
from chutes_core.miner.doctor.cache import look_at_cache
from chutes_core.miner.doctor.needs import held_against, read_needs
from chutes_core.miner.doctor.reach import look_from_outside
from chutes_core.miner.doctor.report import Finding, Report, run_check
from chutes_core.miner.hostfacts import TransferMeter, host_facts
from chutes_core.miner.settings import MinerSettings

CHECK_S = 120.0


async def examine(settings: MinerSettings, connect_chain: Connect) -> Report:
    """Look at everything; nothing is changed."""
    known = chain_checks.Known()
    engine: list[Engine] = []
    findings: list[Finding] = []

    async def add(name: str, check: Callable[[], Awaitable[Iterable[Finding]]]) -> None:
        findings.extend(await run_check(name, lambda: _in_time(name, check)))

    await add("host", lambda: _host(settings))
    await add("model cache", lambda: look_at_cache(settings))
    await add("gpus", lambda: gpu_checks.look_at_gpus(settings))
    await add("engine", lambda: _engine(settings, engine))
    await add("firewall", lambda: _firewall(settings))
    found = engine[0] if engine else None
    await add("gpu container", lambda: gpu_checks.look_at_containers(found, settings))
    await add("provers", lambda: gpu_checks.look_at_provers(settings))
    await add("hotkey", lambda: chain_checks.look_at_keys(settings, known))
    await add("chain", lambda: _chain(settings, known, connect_chain))
    await add("chain", lambda: chain_checks.look_at_chain(settings, known))
    await add("validators", lambda: _outside(settings, known))
    if found is not None:
        found.close()
    if known.chain is not None:
        await asyncio.to_thread(known.chain.close)
    return Report(tuple(findings))


async def _host(settings: MinerSettings) -> Iterable[Finding]:
    path = settings.data_path
    while not path.exists():  # before the first start: where it would be made
        path = path.parent
    return held_against(read_needs(), host_facts(path, TransferMeter()))


async def _engine(settings: MinerSettings, engine: list[Engine]) -> Iterable[Finding]:
    if settings.runtime != "docker":
        return [Finding("engine", "skip", "the process runtime needs none (a devnet only)")]
    engine.append(await asyncio.to_thread(connect, settings.docker_host or None))
    return [Finding("engine", "ok", f"Docker engine, API {engine[0].api.api_version}")]


async def _firewall(settings: MinerSettings) -> Iterable[Finding]:
    if settings.runtime != "docker":
        return [Finding("firewall", "skip", "the process runtime has no walls")]
    await asyncio.to_thread(Firewall().check)
    return [Finding("firewall", "ok", "rules can be set")]


async def _chain(
    settings: MinerSettings, known: chain_checks.Known, connect_chain: Connect
) -> Iterable[Finding]:
    chain: Chain = await asyncio.to_thread(connect_chain, settings.chain_url, settings.netuid)
    known.chain = chain
    return []


async def _outside(settings: MinerSettings, known: chain_checks.Known) -> Iterable[Finding]:
    if known.keys is None or known.chain is None or known.seen is None:
        return [Finding("validators", "skip", "the chain or the hotkey is missing")]
    if known.seen.metagraph.by_hotkey(known.keys.hotkey_ss58) is None:
        return [Finding("validators", "skip", "they answer registered hotkeys only")]
    return await look_from_outside(settings, known.keys.hotkey, known.chain, known.seen)


async def _in_time(
    name: str, check: Callable[[], Awaitable[Iterable[Finding]]]
) -> Iterable[Finding]:
    try:
        return await asyncio.wait_for(_await(check), CHECK_S)
    except asyncio.TimeoutError as error:
        raise TimedOut(
            "check_timeout",
            f"the check of {name} took over {CHECK_S:.0f} s",
            hint="what it looks at hangs; look at that by hand",
        ) from error


async def _await(check: Callable[[], Awaitable[Iterable[Finding]]]) -> Iterable[Finding]:
    return await check()
