"""One graval prover: a child process that speaks `graval.messages` on its stdin and stdout.

Path: runner/proof starts one per GPU -> WARM -> LEG1, LEG2 -> answers -> stopped before user code
is loaded. Invariant: after `stop` has returned the child is gone, and with it its VRAM; a runner
that dies closes the child's stdin, upon which the child exits by itself.
"""

import asyncio
import contextlib
import json
import os
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from chutes_core.base.errors import Unavailable
from chutes_core.runner.settings import GpuSlot
from graval.challenge import Answer
from graval.errors import GravalError
from graval.messages import (
    HEADER_BYTES,
    ErrorReport,
    Kind,
    Message,
    Warm,
    decode_header,
    encode,
)

STDERR_TAIL_LINES = 20
QUIT_S = 10.0
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""For stand-ins: their work is so small that threads cost more than they bring on a busy CPU."""
_T = TypeVar("_T")


class Prover:
    """One running child; started by `start`.

    Args:
        process: the child, with all three streams piped.
        name: as it appears in errors, e.g. ``gpu 0``.
    """

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name
        self._tail: deque[str] = deque(maxlen=STDERR_TAIL_LINES)
        self._stderr = asyncio.ensure_future(self._keep_stderr())

    @classmethod
    async def start(
        cls, python: str, gpu: GpuSlot, waiting: "WaitingProvers | None" = None
    ) -> "Prover":
        """Start the child for one GPU; the numpy backend where a stand-in is declared.

        Raises:
            Unavailable: ``prover_not_started``.
        """
        name = f"gpu {gpu.index}"
        ready = waiting.take() if waiting is not None else None
        if ready is not None:
            return cls(_sent_off(ready, gpu), name)
        return cls(await _spawned((*_command(python), *_arguments(gpu)), _environ(gpu), name), name)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def warm(self, timeout_s: float) -> bytes:
        """Wait until the device is warm; the body of the child's WARM, as it came.

        Raises:
            Unavailable: ``prover_…``: it failed, ended, or took too long.
        """
        body = await self._within(self._expect(Kind.WARM), timeout_s)
        try:
            Warm.from_bytes(body)
        except GravalError as error:
            raise self._error("prover_bad_message", str(error)) from error
        return body

    async def answer(self, leg: int, body: bytes, timeout_s: float) -> bytes:
        """Have leg 1 or 2 answered; the 32-byte digest.

        Raises:
            Unavailable: ``prover_…``: it failed, ended, or took too long.
        """
        return await self._within(self._answer(leg, body), timeout_s)

    async def stop(self) -> None:
        """End the child and wait until it has exited: QUIT, then SIGKILL after QUIT_S."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(encode(Message(Kind.QUIT)))
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), QUIT_S)
        except asyncio.TimeoutError:
            await self.kill()
        await self._let_stderr_end()

    async def kill(self) -> None:
        """End the child at once, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _answer(self, leg: int, body: bytes) -> bytes:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(encode(Message(Kind.LEG1 if leg == 1 else Kind.LEG2, body)))
            await self._process.stdin.drain()
            return Answer.from_bytes(await self._expect(Kind.ANSWER)).digest
        except OSError as error:
            raise await self._ended() from error
        except GravalError as error:
            raise self._error("prover_bad_message", str(error)) from error

    async def _expect(self, kind: Kind) -> bytes:
        assert self._process.stdout is not None
        try:
            got, size = decode_header(await self._process.stdout.readexactly(HEADER_BYTES))
            body = await self._process.stdout.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise await self._ended() from error
        except GravalError as error:
            raise self._error("prover_bad_message", str(error)) from error
        if got is Kind.ERROR:
            raise self._reported(body)
        if got is not kind:
            raise self._error("prover_bad_message", f"it sent {got.name} in place of {kind.name}")
        return body

    def _reported(self, body: bytes) -> Unavailable:
        try:
            report = ErrorReport.from_bytes(body)
        except GravalError as error:
            return self._error("prover_bad_message", str(error))
        return self._error(f"prover_{report.code}", report.text, report.hint)

    async def _ended(self) -> Unavailable:
        await self.kill()  # its streams are closed: nothing more can come from it
        await self._let_stderr_end()
        text = f"it ended with status {self._process.returncode}: " + " | ".join(self._tail)
        return self._error("prover_ended", text)

    def _error(self, code: str, text: str, hint: str = "") -> Unavailable:
        return Unavailable(code, f"{self._name}: {text}", hint=hint)

    async def _within(self, awaitable: Awaitable[_T], timeout_s: float) -> _T:
        try:
            return await asyncio.wait_for(awaitable, timeout_s)
        except asyncio.TimeoutError as error:
            text = f"nothing came within {timeout_s} s; " + " | ".join(self._tail)
            raise self._error("prover_timeout", text) from error

    async def _let_stderr_end(self) -> None:
        # a grandchild may still hold the pipe: what it writes is not waited for
        await asyncio.wait({self._stderr}, timeout=1.0)
        self._stderr.cancel()

    async def _keep_stderr(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(4096):
            self._tail.extend(chunk.decode(errors="replace").splitlines())


class WaitingProvers:
    """Children that have imported what they need and wait to be told their GPU."""

    def __init__(self) -> None:
        self._ready: list[asyncio.subprocess.Process] = []

    async def begin(self, python: str, count: int, declared: bool) -> None:
        """Start so many, for stand-ins or for devices.

        Raises:
            Unavailable: ``prover_not_started``.
        """
        backend = "numpy" if declared else "auto"
        command = (*_command(python), "--later", "--backend", backend)
        environ = {**_ONE_THREAD, **os.environ} if declared else dict(os.environ)
        for number in range(count):
            name = f"waiting prover {number}"
            self._ready.append(await _spawned(command, environ, name))

    def take(self) -> asyncio.subprocess.Process | None:
        """Return one that still waits, or None."""
        while self._ready:
            process = self._ready.pop()
            if process.returncode is None:
                return process
        return None

    async def close(self) -> None:
        """End those that nobody took."""
        while (process := self.take()) is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _spawned(
    command: Sequence[str], environ: Mapping[str, str], name: str
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        text = f"{name}: {command[0]}: {error}"
        raise Unavailable("prover_not_started", text) from error


def _sent_off(process: asyncio.subprocess.Process, gpu: GpuSlot) -> asyncio.subprocess.Process:
    """Tell a waiting child its GPU. One that has died meanwhile shows it when its WARM is due."""
    assert process.stdin is not None
    order = {"arguments": _arguments(gpu), "environ": _environ(gpu)}
    process.stdin.write(json.dumps(order).encode() + b"\n")
    return process


def _command(python: str) -> list[str]:
    return [python, "-m", "graval.prover"]


def _arguments(gpu: GpuSlot) -> list[str]:
    if gpu.declare is None:  # the only GPU that the child sees
        return ["--gpu", "0", "--backend", "auto"]
    stand_in = ["--backend", "numpy", "--declare", gpu.declare, "--uuid", gpu.uuid]
    return ["--gpu", str(gpu.index), *stand_in]


def _environ(gpu: GpuSlot) -> dict[str, str]:
    """The runner's environment, with one GPU visible, by UUID: indices differ between processes."""
    if gpu.declare is not None:
        return {**_ONE_THREAD, **os.environ}
    return {**os.environ, "CUDA_VISIBLE_DEVICES": gpu.uuid}
