"""A look inside a validator that runs: its gateway's counters and its event loop's lag.

The harness's parent of the validator (lived_validator.py) installs it before the validator's own
entrance runs; nothing of the validator is changed but that it is watched. Whoever connects to the
Unix socket (of Linux's abstract names, so that no file is left) is told everything as one line of
JSON, and the lists of lags and of blocking calls begin anew. A lag is how much later than asked a
sleep of SAMPLE_S ended: what any callback of the loop would have waited. Beside each stands how
much of it the loop's thread was ready to run and the machine gave the core to others
(/proc/…/schedstat).
"""

import asyncio
import json
import time
from collections import deque
from pathlib import Path
from typing import Any

from chutes_core.validator import lifetime
from chutes_core.validator.app import Validator
from tests.bench.blocking import Blocking

SAMPLE_S = 0.005
MOST_SAMPLES = 20_000  # the newest 100 s: what watches memory must not grow itself


class Probe:
    """Watches one validator from inside of its loop."""

    def __init__(self, validator: Validator, name: str) -> None:
        self._validator = validator
        self._users = [account.user_id for account in validator.store.accounts.all()]
        self._blocking = Blocking()
        self._lags_us: deque[tuple[int, int]] = deque(maxlen=MOST_SAMPLES)
        self._tasks = [asyncio.ensure_future(self._serve(name)), asyncio.ensure_future(self._lag())]

    async def _serve(self, name: str) -> None:
        async with await asyncio.start_unix_server(self._tell, "\0" + name) as server:
            await server.serve_forever()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(json.dumps(self._view()).encode() + b"\n")
        writer.close()

    async def _lag(self) -> None:
        while True:
            queued, due = _queued_ns(), time.perf_counter() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            lag_us = round((time.perf_counter() - due) * 1e6)
            self._lags_us.append((lag_us, (_queued_ns() - queued) // 1000))

    def _view(self) -> dict[str, Any]:
        gateway = self._validator.gateway
        lags = list(self._lags_us)
        self._lags_us.clear()
        return {
            "stats": gateway.stats(),
            "taken_rao": {user_id: gateway.taken_rao(user_id) for user_id in self._users},
            "demand": [vars(one) for one in gateway.demand.snapshot().values()],
            "lags_us": lags,
            "blocking": self._blocking.taken(),
        }


def _queued_ns() -> int:
    """Return how long this thread was ready to run and did not (Documentation/scheduler)."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1])


def install(name: str) -> None:
    """Have every validator that this process builds be watched."""
    build = lifetime.build
    kept: list[Probe] = []

    def watched(*given: Any, **named: Any) -> Validator:
        validator = build(*given, **named)
        kept.append(Probe(validator, name))
        return validator

    lifetime.build = watched


async def ask(name: str) -> dict[str, Any]:
    """Return what a probe tells."""
    reader, writer = await asyncio.open_unix_connection("\0" + name, limit=64 * 1024 * 1024)
    try:
        return dict(json.loads(await reader.readline()))
    finally:
        writer.close()
