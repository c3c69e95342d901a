"""The doctor's look from outside: validators dial this host back, and compare clocks.

Path: candidates of the chain -> GET /.well-known/chutes -> POST /miner/reachable. Where the miner
is not running, the ports are held open here meanwhile. Invariant: a validator dials only the
address that the chain shows for this hotkey, or the one that the call came from.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

from bittensor_core import Keypair

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError
from chutes_core.miner.chain_view import Chain, Seen
from chutes_core.miner.discovery import Directory, ServePolicy, Validator
from chutes_core.miner.doctor.report import Finding
from chutes_core.miner.settings import MinerSettings
from chutes_core.miner.validator_api import HttpValidatorApi
from chutes_core.wire.control import DialBack, DialBackRequest
from chutes_core.wire.signing import ALLOWED_SKEW_S

ASKED = 3
CLOCK_FIX = "set the clock by NTP: timedatectl set-ntp true (or chronyd)"
PORT_FIX = (
    "open it in the firewall and at the provider; behind a NAT map both ports one to one, and set"
    " CHUTES_MINER_EXTERNAL_IP to the public address"
)
_PONG = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n"
    b'connection: close\r\n\r\n{"ok":true}'
)


async def look_from_outside(
    settings: MinerSettings, key: Keypair, chain: Chain, seen: Seen
) -> Iterable[Finding]:
    """Ask validators to dial both ports, and compare clocks with theirs."""
    async with HttpValidatorApi(key) as api:
        validators = await _validators(settings, api, chain, seen)
        if not validators:
            fix = "none is permitted and answers, or CHUTES_MINER_VALIDATORS leaves none"
            return [Finding("validators", "warn", "no validator was found", fix)]
        found = ", ".join(validator.url for validator in validators)
        findings = [Finding("validators", "ok", f"{len(validators)}: {found}")]
        async with _held_open(settings) as ports:
            for validator in validators[:ASKED]:
                findings += await _ask(api, validator, *ports)
        return findings


async def _ask(
    api: HttpValidatorApi, validator: Validator, port: int, relay_port: int
) -> list[Finding]:
    request = DialBackRequest(port=port, relay_port=relay_port)
    began = time.time()
    try:
        answer = await api.dial_back(validator, request)
    except ChutesError as error:
        if error.code == "auth_stale":
            return [Finding("clock", "fail", f"{validator.url} calls it wrong", CLOCK_FIX)]
        return [Finding("ports", "warn", f"{validator.url}: {error}", error.hint)]
    return [_clock(validator, answer, began, time.time()), *_ports(validator, answer, request)]


def _clock(validator: Validator, answer: DialBack, began: float, ended: float) -> Finding:
    """Compare clocks; the answer was written at some time between question and answer."""
    off_s = max(began - (answer.server_time_s + 1), answer.server_time_s - ended, 0)
    state = "ok" if off_s <= ALLOWED_SKEW_S else "fail"
    found = f"within {off_s:.0f} s of {validator.url}"
    return (
        Finding("clock", "ok", found)
        if state == "ok"
        else Finding("clock", "fail", f"{off_s:.0f} s away from {validator.url}", CLOCK_FIX)
    )


def _ports(validator: Validator, answer: DialBack, request: DialBackRequest) -> Iterable[Finding]:
    for name, port, result in (
        ("port", request.port, answer.port),
        ("relay port", request.relay_port, answer.relay_port),
    ):
        found = f"{validator.url} dialled {answer.host}:{port}: {result}"
        well = result == "ok"
        yield Finding(name, "ok" if well else "fail", found, "" if well else PORT_FIX)


async def _validators(
    settings: MinerSettings, api: HttpValidatorApi, chain: Chain, seen: Seen
) -> tuple[Validator, ...]:
    directory = Directory(
        api.well_known,
        policy=ServePolicy(settings.chosen_validators, settings.min_stake_rao),
        genesis_hash=chain.genesis_hash,
        netuid=chain.netuid,
        allow_private=chain.is_devnet,
        clock=SystemClock(),
    )
    await directory.refresh(seen)
    return directory.validators


@contextlib.asynccontextmanager
async def _held_open(settings: MinerSettings) -> AsyncIterator[tuple[int, int]]:
    """Listen where the miner would; a port that is taken is taken by the miner itself."""
    servers, ports = [], []
    for port in (settings.port, settings.relay_port):
        try:
            server = await asyncio.start_server(_answer, settings.host, port)
        except OSError:
            ports.append(port)
            continue
        servers.append(server)
        ports.append(int(server.sockets[0].getsockname()[1]))
    outside = settings.external_port or ports[0]
    try:
        yield outside, ports[1]
    finally:
        for server in servers:
            server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        await asyncio.wait_for(reader.read(1024), 5)
        writer.write(_PONG)
        await writer.drain()
    writer.close()
