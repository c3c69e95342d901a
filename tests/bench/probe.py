"""A look inside a validator that runs: its gateway's counters and its event loop's lag.

The harness's parent of the validator (lived_validator.py) installs it before the validator's own
entrance runs; nothing of the validator is changed but that it is watched. Whoever connects to the
Unix socket (of Linux's abstract names, so that no file is left) is told everything as one line of
JSON, and the list of lags begins anew. A lag is how much later than asked a sleep of SAMPLE_S
ended: what any callback of the loop would have waited.
"""

import asyncio
import json
from typing import Any

from chutes_core.validator import lifetime
from chutes_core.validator.app import Validator

SAMPLE_S = 0.005


class Probe:
    """Watches one validator from inside of its loop."""

    def __init__(self, validator: Validator, name: str) -> None:
        self._validator = validator
        self._lags_us: list[int] = []
        self._tasks = [asyncio.ensure_future(self._serve(name)), asyncio.ensure_future(self._lag())]

    async def _serve(self, name: str) -> None:
        async with await asyncio.start_unix_server(self._tell, "\0" + name) as server:
            await server.serve_forever()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(json.dumps(self._view()).encode() + b"\n")
        writer.close()

    async def _lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            self._lags_us.append(round((loop.time() - due) * 1e6))

    def _view(self) -> dict[str, Any]:
        gateway = self._validator.gateway
        lags, self._lags_us = self._lags_us, []
        return {
            "stats": gateway.stats(),
            "taken_rao": {
                account.user_id: gateway.taken_rao(account.user_id)
                for account in self._validator.store.accounts.all()
            },
            "demand": [vars(one) for one in gateway.demand.snapshot().values()],
            "lags_us": lags,
        }


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
