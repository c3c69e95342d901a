"""One launch from listening to active: prove, rekey, start, probe; a node attestation ends proven.

Path: service -> here -> attest -> instance. One task per launch is the only one that moves it on;
others can only end it, which the store's compare-and-set makes visible here as a Conflict.
Invariant: no code and no secret leaves before the proof was accepted and root 1 is in use.
"""

import asyncio

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError, Conflict, ProtocolError, TimedOut
from chutes_core.validator.domain.launches import Launch, LaunchState, Reason
from chutes_core.validator.domain.verdicts import Attestation
from chutes_core.validator.launches import instance
from chutes_core.validator.launches.admissions import Admissions
from chutes_core.validator.launches.instance import InstanceAddress, InstanceRefused
from chutes_core.validator.launches.plans import Plans
from chutes_core.validator.launches.ports import Attestor, Changed, SecretsOf
from chutes_core.validator.launches.service import LaunchLimits
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.store.database import Store
from chutes_core.wire.launch import StartOrder


class Lifecycle:
    """Carries launches from listening to active, each in a task of its own."""

    def __init__(
        self,
        *,
        store: Store,
        attestor: Attestor,
        plans: Plans,
        admissions: Admissions,
        vault: Vault,
        clock: Clock,
        limits: LaunchLimits,
        secrets_of: SecretsOf,
        changed: Changed,
    ) -> None:
        self._store = store
        self._attestor = attestor
        self._plans = plans
        self._admissions = admissions
        self._vault = vault
        self._clock = clock
        self._limits = limits
        self._secrets_of = secrets_of
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._proving: set[str] = set()

    def begin(self, launch_id: str) -> None:
        """Start carrying a listening launch on."""
        task = asyncio.create_task(self._carry(launch_id), name=f"launch {launch_id}")
        self._tasks[launch_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(launch_id, None))

    def forget(self, launch_id: str) -> None:
        """Stop carrying a launch that has ended otherwise.

        A proof that has begun is finished and recorded: ending a launch is no way around a verdict.
        """
        if launch_id in self._proving:
            return
        if task := self._tasks.get(launch_id):
            task.cancel()

    async def close(self) -> None:
        """Stop all tasks."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def address(self, launch: Launch) -> InstanceAddress:
        """Return how a proven instance is reached.

        Raises:
            Conflict: the launch has no root yet.
        """
        sealed = self._store.launches.secrets(launch.launch_id)
        if sealed.root is None:
            raise Conflict("no_root", "this launch has not been proven")
        return InstanceAddress(
            launch_id=launch.launch_id,
            host=launch.relay_host,
            port=launch.relay_port,
            ticket=self._vault.reveal(launch.launch_id, "ticket", sealed.ticket),
            root=self._vault.reveal(launch.launch_id, "root", sealed.root),
        )

    async def end(self, launch_id: str, reason: Reason, detail: str = "") -> None:
        """Mark a launch gone, whatever its state, and tell the snapshot."""
        ended = await asyncio.to_thread(self._end, launch_id, reason, detail)
        if ended:
            logger.info("launch ended", launch=launch_id, reason=reason.value, detail=detail[:200])
            await self._changed()

    async def _carry(self, launch_id: str) -> None:
        try:
            if await self._prove(launch_id):
                await self._start(launch_id)
        except Conflict as conflict:  # it ended meanwhile, by its miner or a deadline
            logger.info("launch left", launch=launch_id, reason=conflict.code)
        except Exception as error:  # noqa: BLE001 # the task's edge: no launch is left hanging
            logger.opt(exception=error).error("launch failed unexpectedly", launch=launch_id)
            await self.end(launch_id, Reason.PROTOCOL, "the validator failed; ask again")

    async def _prove(self, launch_id: str) -> bool:
        """Attest; True where an instance is to be started."""
        launch = await self._advance(launch_id, LaunchState.LISTENING, LaunchState.CHALLENGED)
        plan = await asyncio.to_thread(self._plans.first, launch)
        self._proving.add(launch_id)
        try:
            return await self.proven(launch, await self._attestor.attest(plan))
        finally:
            self._proving.discard(launch_id)

    async def proven(self, launch: Launch, attestation: Attestation) -> bool:
        """Take a challenged launch's first attestation; True where an instance is to be started."""
        launch_id, proof = launch.launch_id, attestation.proof
        await asyncio.to_thread(self.record, launch, attestation)
        if attestation.root is None or not attestation.passed:
            reason = attestation.reason or Reason.PROTOCOL
            await self.end(launch_id, reason, attestation.detail)
            return False
        if not launch.admission:
            sealed = self._vault.seal(launch_id, "root", attestation.root)
            await asyncio.to_thread(self._store.launches.set_root, launch_id, sealed)
        await self._advance(
            launch_id, LaunchState.CHALLENGED, LaunchState.VERIFIED, proof_id=proof.proof_id
        )
        if launch.admission:
            await self.end(launch_id, Reason.ATTESTED)
        return not launch.admission

    def record(self, launch: Launch, attestation: Attestation) -> None:
        """Keep a proof, draw its consequences for the GPUs' standing, and log its verdicts."""
        proof = attestation.proof
        with self._store.transaction():
            self._store.proofs.insert(proof)
            self._admissions.judged(launch, proof)
        for gpu in proof.gpus:
            logger.info(
                "verdict given",
                launch=launch.launch_id,
                gpu=gpu.gpu_uuid,
                profile=proof.profile,
                scope=proof.scope,
                accepted=gpu.accepted,
                reason=gpu.reason.value,
                basis=gpu.basis,
                leg1_us=gpu.leg1_us,
                leg2_us=gpu.leg2_us,
            )

    async def _start(self, launch_id: str) -> None:
        deadline_s = self._clock.now_s() + self._limits.start_deadline_s
        launch = await self._advance(
            launch_id, LaunchState.VERIFIED, LaunchState.STARTING, deadline_s=deadline_s
        )
        address = await asyncio.to_thread(self.address, launch)
        lease_until_s = self._clock.now_s() + self._limits.lease_renewal_s
        try:
            await instance.probe(address)
            order = await asyncio.to_thread(self._order, launch, lease_until_s)
            await instance.start(address, order, timeout_s=self._limits.start_deadline_s)
            await instance.probe(address)
        except ChutesError as error:
            await self.end(launch_id, _start_reason(error), str(error))
            return
        await self._advance(
            launch_id,
            LaunchState.STARTING,
            LaunchState.ACTIVE,
            active_at_s=self._clock.now_s(),
            lease_until_s=lease_until_s,
        )
        logger.info("launch became active", launch=launch_id, miner=launch.miner_hotkey)
        await self._changed()

    async def _advance(
        self, launch_id: str, from_state: LaunchState, to_state: LaunchState, **changes: str | int
    ) -> Launch:
        return await asyncio.to_thread(
            self._store.launches.advance, launch_id, from_state, to_state, **changes
        )

    def _order(self, launch: Launch, lease_until_s: int) -> StartOrder:
        chute = self._store.chutes.get(launch.chute_id)
        if chute is None or chute.version != launch.version:
            raise ProtocolError("superseded", "the chute was deleted or has a newer version")
        return StartOrder(
            launch_id=launch.launch_id,
            chute_id=chute.chute_id,
            version=chute.version,
            filename=chute.filename,
            ref_str=chute.ref_str,
            code=chute.code,
            secrets=dict(self._secrets_of(chute)),
            concurrency=chute.concurrency,
            lease_until_s=lease_until_s,
        )

    def _end(self, launch_id: str, reason: Reason, detail: str) -> bool:
        while True:
            launch = self._store.launches.get(launch_id)
            if launch is None or launch.state is LaunchState.GONE:
                return False
            try:
                self._store.launches.advance(
                    launch_id,
                    launch.state,
                    LaunchState.GONE,
                    reason=reason,
                    detail=detail[:4000],
                    gone_at_s=self._clock.now_s(),
                )
            except Conflict:  # it moved between our read and our write: look again
                continue
            return True


def _start_reason(error: ChutesError) -> Reason:
    if error.code == "superseded":
        return Reason.SUPERSEDED
    if isinstance(error, InstanceRefused):
        return Reason.START_FAILED
    if isinstance(error, TimedOut):
        return Reason.START_DEADLINE
    return Reason.PROTOCOL if isinstance(error, ProtocolError) else Reason.UNREACHABLE
