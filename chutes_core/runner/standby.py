"""A runner without a launch: everything imported, provers' interpreters up, no code and no key.

Path: miner (an image is likely to be wanted again) -> `__main__` -> `StandBy.order` waits -> one
line on stdin: the environment of a launch -> app goes on as any runner does, and is attested too.
Invariants: nothing of a launch is known before that line; no device is touched (a prover opens its
own when its launch asks for it); and at the end of stdin, which comes when the miner is gone, or on
SIGTERM, the process ends.
"""

import asyncio
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import MutableMapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chutes_core.base.errors import Invalid
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.identity import rehearse
from chutes_core.runner.proof import own_version
from chutes_core.runner.prover import WaitingProvers
from chutes_core.runner.settings import PREFIX

VARIABLE = PREFIX + "STAND_BY"
MAX_ORDER_BYTES = 256 * 1024
_PYTHON = PREFIX + "GRAVAL_PYTHON"
_SDK = "chutes_core.sdk.loader"


class StandBy(BaseModel):
    """What is made ready: so many provers' interpreters, for stand-ins or for devices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provers: int = Field(ge=0, le=64)
    declared: bool

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> "StandBy | None":
        """Return what the environment asks for, and remove it there; None for an ordinary start.

        Raises:
            Invalid: ``bad_setting``.
        """
        value = environ.pop(VARIABLE, "")
        if not value:
            return None
        try:
            return cls.model_validate_json(value)
        except ValidationError as error:
            raise Invalid("bad_setting", f"{VARIABLE} is not what it should be") from error

    async def order(
        self,
        chute_loop: ChuteLoop,
        signals: socket.socket,
        provers: WaitingProvers,
        environ: MutableMapping[str, str],
    ) -> bool:
        """Get ready and wait for a launch's environment; False where none will come.

        Raises:
            Invalid: ``bad_order``.
        """
        chute_loop.soon(importlib.import_module, _SDK)
        await provers.begin(environ.get(_PYTHON) or sys.executable, self.provers, self.declared)
        rehearse()
        own_version()
        line = await _first_line(signals)
        if not line:
            await provers.close()
            return False
        try:
            order = json.loads(line)
            environ.update({str(name): str(value) for name, value in order.items()})
        except (ValueError, AttributeError) as error:
            raise Invalid("bad_order", "the line on stdin is no environment") from error
        return True


async def _first_line(signals: socket.socket) -> bytes:
    """Return the first line of stdin; nothing at its end, or on a signal."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_ORDER_BYTES)
    source = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), source
    )
    ended = asyncio.Event()

    def arrived() -> None:
        if set(signals.recv(64)) & {signal.SIGTERM, signal.SIGINT}:
            ended.set()

    loop.add_reader(signals, arrived)
    reading = asyncio.ensure_future(reader.readline())
    stopping = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() and not reading.cancelled() else b""
    except ValueError as error:  # longer than the limit
        raise Invalid("bad_order", f"the line on stdin is over {MAX_ORDER_BYTES} bytes") from error
    finally:
        loop.remove_reader(signals)
        for task in (reading, stopping):
            task.cancel()
        await asyncio.gather(reading, stopping, return_exceptions=True)
        transport.close()
