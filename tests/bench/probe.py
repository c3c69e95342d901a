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
import ctypes
import json
import socket
import sys
import threading
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
    """Watches one validator from inside of its loop; lags and blocking calls if ``watched``."""

    def __init__(self, validator: Validator, name: str, *, watched: bool) -> None:
        self._validator = validator
        self._users = [account.user_id for account in validator.store.accounts.all()]
        self._blocking = Blocking() if watched else None
        self._lags_us: deque[tuple[int, int]] = deque(maxlen=MOST_SAMPLES)
        self._tasks = [asyncio.ensure_future(self._serve(name))]
        if watched:
            self._tasks.append(asyncio.ensure_future(self._lag()))

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
            "blocking": self._blocking.taken() if self._blocking else {},
            "memory": _memory(),
        }


def _queued_ns() -> int:
    """Return how long this thread was ready to run and did not (Documentation/scheduler)."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1])


class _Mallinfo(ctypes.Structure):
    """mallinfo(3): of all arenas of the C library."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _memory() -> dict[str, int]:
    """Return what of the memory is in use: Python's small objects by number, the C library's bytes.

    A process whose memory grows while these do not holds on to what was freed.
    """
    found = {"python_blocks": sys.getallocatedblocks(), "threads": threading.active_count()}
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33
    if mallinfo is not None:
        mallinfo.restype = _Mallinfo
        told = mallinfo()
        found |= {
            "malloc_used": told.uordblks,
            "malloc_free": told.fordblks,
            "mapped": told.hblkhd,
        }
    return found


def install(name: str, *, watched: bool = True) -> None:
    """Have every validator that this process builds be watched."""
    build = lifetime.build
    kept: list[Probe] = []

    def built(*given: Any, **named: Any) -> Validator:
        validator = build(*given, **named)
        kept.append(Probe(validator, name, watched=watched))
        return validator

    lifetime.build = built


async def ask(name: str) -> dict[str, Any]:
    """Return what a probe tells."""
    door = socket.socket(socket.AF_UNIX)
    door.setblocking(False)
    door.connect("\0" + name)  # at once; uvloop's own way takes no abstract name
    reader, writer = await asyncio.open_unix_connection(sock=door, limit=64 * 1024 * 1024)
    try:
        return dict(json.loads(await reader.readline()))
    finally:
        writer.close()
