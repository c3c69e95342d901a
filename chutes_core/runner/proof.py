"""The proof of one launch: provers warm, legs answered, then the keys move on.

Path: session (HELLO, LEG, REKEY) -> here -> a `Prover` per GPU -> answers -> `Identity.rekey`.
Later proofs of the same instance change no keys: `finish` ends them, and the host's idle GPUs take
no part. Invariant: one attempt at a time, at most one rekeys, and when `rekey` or `finish` has
returned every prover has exited, so that user code finds all VRAM free.
"""

import asyncio
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from chutes_core.base.errors import Conflict, ProtocolError
from chutes_core.runner.identity import Identity
from chutes_core.runner.prover import Prover, WaitingProvers
from chutes_core.runner.settings import GpuSlot, RunnerSettings
from chutes_core.wire.control import Handshake
from chutes_core.wire.launch import Warm

BUSY_WAIT_S = 2.0


class ProofGate:
    """Lets one proof attempt run at a time."""

    def __init__(
        self,
        settings: RunnerSettings,
        identity: Identity,
        waiting: WaitingProvers | None = None,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._waiting = waiting or WaitingProvers()
        self._place = asyncio.Lock()
        self._attempt: ProofAttempt | None = None

    async def begin(self, *, again: bool = False) -> "ProofAttempt":
        """Return a new attempt; its holder ends it with `end`.

        With ``again`` it is one of an instance that has been proven before.

        Waits BUSY_WAIT_S for another to end: a validator that tries again at once may overtake
        the end of its own first connection.

        Raises:
            Conflict: ``already_proven``, or ``proof_busy`` while another attempt runs.
        """
        try:
            await asyncio.wait_for(self._place.acquire(), BUSY_WAIT_S)
        except asyncio.TimeoutError:
            raise Conflict("proof_busy", "another connection runs a proof of this one") from None
        if self._identity.proven and not again:
            self._place.release()
            raise Conflict("already_proven", "this instance has been proven")
        gpus = self._settings.gpus
        if again:
            gpus = tuple(gpu for gpu in gpus if not gpu.idle)
        self._attempt = ProofAttempt(self._settings, self._identity, gpus, self._waiting)
        return self._attempt

    async def end(self, attempt: "ProofAttempt") -> None:
        """End an attempt: its provers are gone when this returns."""
        await attempt.close()
        if self._attempt is attempt:
            self._attempt = None
            self._place.release()

    async def close(self) -> None:
        """End whatever runs."""
        if self._attempt is not None:
            await self.end(self._attempt)


class ProofAttempt:
    """One attempt on one connection."""

    def __init__(
        self,
        settings: RunnerSettings,
        identity: Identity,
        gpus: tuple[GpuSlot, ...],
        waiting: WaitingProvers,
    ) -> None:
        self._waiting = waiting
        self._settings = settings
        self._identity = identity
        self._gpus = gpus
        self._provers: list[Prover] = []
        self._busy: set[int] = set()
        self._answers: dict[tuple[int, int], bytes] = {}
        self._closed = False

    async def warm(self) -> Warm:
        """Start a prover per GPU and wait until all are warm.

        Raises:
            Unavailable: ``prover_…``.
        """
        for gpu in self._gpus:
            prover = await Prover.start(self._settings.graval_python, gpu, self._waiting)
            if self._closed:  # the connection ended meanwhile
                await prover.kill()
                raise ProtocolError("proof_closed", "the proof was given up")
            self._provers.append(prover)
        waiting = (prover.warm(self._settings.prover_warm_s) for prover in self._provers)
        devices = await asyncio.gather(*waiting)
        return Warm(
            handshake=Handshake(version=own_version()),
            instance_public_key=self._identity.public_key,
            devices=tuple(body.hex() for body in devices),
        )

    async def answer(self, gpu: int, leg: int, body: bytes) -> bytes:
        """Return GPU number ``gpu``'s answer (32 bytes) to leg 1 or 2.

        Raises:
            ProtocolError: no such GPU or leg, or one is under way there.
            Unavailable: ``prover_…``.
        """
        if gpu >= len(self._provers) or leg not in (1, 2) or gpu in self._busy:
            raise ProtocolError("bad_leg", f"GPU {gpu} takes no leg {leg} now")
        self._busy.add(gpu)
        try:
            digest = await self._provers[gpu].answer(leg, body, self._settings.prover_leg_s)
        finally:
            self._busy.discard(gpu)
        self._answers[gpu, leg] = digest
        return digest

    async def rekey(self) -> None:
        """Stop the provers, wait until they have exited, and move to root 1.

        Raises:
            ProtocolError: ``proof_incomplete``.
            Conflict: ``already_proven``.
        """
        places = [(gpu, leg) for gpu in range(len(self._gpus)) for leg in (1, 2)]
        if self._busy or any(place not in self._answers for place in places):
            raise ProtocolError("proof_incomplete", "not every leg has its answer")
        answers = b"".join(self._answers[place] for place in places)
        await self.finish()
        self._identity.rekey(answers)

    async def finish(self) -> None:
        """Stop the provers and wait until they have exited; what they work on is dropped."""
        await self._waiting.close()
        if self._busy:
            await self.close()
        provers, self._provers = self._provers, []
        await asyncio.gather(*(prover.stop() for prover in provers))
        self._answers.clear()

    async def close(self) -> None:
        """Kill what still runs."""
        self._closed = True
        provers, self._provers = self._provers, []
        await asyncio.gather(*(prover.kill() for prover in provers))


@cache
def own_version() -> str:
    """Return the version of this software in the image; looked up once, for it reads files."""
    try:
        return version("chutes-core")
    except PackageNotFoundError:
        return "0"
