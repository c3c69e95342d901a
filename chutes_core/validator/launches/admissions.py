"""Which GPUs may serve: each needs a fresh, accepted node attestation, and no other claimant.

Path: service (a request) and lifecycle (a proof) -> here -> store.gpus. Invariant: a GPU that gave
a wrong answer is not admitted until it has passed anew, one that two hotkeys show serves neither
until one has passed alone, and one that is called to a round takes up nothing else.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.gpus import Admission, Sighting
from chutes_core.validator.domain.launches import Launch, Reason
from chutes_core.validator.domain.verdicts import GpuVerdict, Proof
from chutes_core.validator.launches.summonses import Summonses
from chutes_core.validator.store.database import Store
from chutes_core.wire.control import AdmissionWanted, Inventory
from chutes_core.wire.system import ADMISSION_CHUTE_ID, ADMISSION_VERSION

HOUR_S = 3600
FRESH_TRIES = 2
"""A late answer is inconclusive: so many more tries within an hour."""
_AGAIN_NUMERATOR, _AGAIN_DENOMINATOR = 3, 4  # of the age limit: then the next one is wanted

Known = Callable[[], Mapping[str, Inventory]]
"""Hotkey -> the inventory it answered last."""
CalledUp = Callable[[str], frozenset[str]]
"""Hotkey -> its GPUs that are called to a round now (see `musters`)."""


@dataclass(frozen=True)
class AdmissionLimits:
    """When GPUs are attested (seconds); an age limit of 0 asks for no node attestation at all."""

    profile: str
    periodic: str
    max_age_s: int
    periodic_s: int
    failed_block_s: int = HOUR_S


class Admissions:
    """Keeps the standing of GPUs."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        limits: AdmissionLimits,
        known: Known,
        called_up: CalledUp = lambda hotkey: frozenset(),
    ) -> None:
        self._called_up = called_up
        self._store = store
        self.summonses = Summonses(store)
        self._clock = clock
        self._limits = limits
        self._known = known

    def listed(self, hotkey: str) -> AdmissionWanted | None:
        """Return what the wanted list says to a miner; None where no attestation is needed."""
        if not self._limits.max_age_s:
            return None
        called_up = self._called_up(hotkey)
        return AdmissionWanted(
            chute_id=ADMISSION_CHUTE_ID,
            version=ADMISSION_VERSION,
            profile=self._limits.profile,
            admitted=tuple(
                admission.gpu_uuid
                for admission in self._young(hotkey)
                if self._clock.now_s() - admission.proven_at_s < self._limits.periodic_s
                and admission.gpu_uuid not in called_up
            ),
        )

    def miners(self) -> frozenset[str]:
        """Return the miners that have admitted GPUs."""
        if not self._limits.max_age_s:
            return frozenset()
        return self._store.gpus.admitted_miners(self._clock.now_s() - self._limits.max_age_s)

    def idle(self, hotkey: str) -> frozenset[str]:
        """Return a miner's admitted GPUs that stand in no launch of ours.

        What its inventory says does not count: a silent one would keep them out of rounds.
        """
        if not self._limits.max_age_s:
            return frozenset()
        since_s = self._clock.now_s() - self._limits.max_age_s
        admitted = {a.gpu_uuid for a in self._admitted(hotkey, since_s)}
        return frozenset(admitted - self._store.launches.busy_gpus(hotkey).keys())

    def profile_for(self, hotkey: str, gpu_uuids: Sequence[str]) -> str:
        """Return what a node attestation asks for: periodic where every GPU's admission is young.

        Raises:
            Conflict: ``gpu_contested`` while the other claimant still offers the GPU.
        """
        self._check_alone(hotkey, gpu_uuids)
        young = {admission.gpu_uuid for admission in self._young(hotkey)}
        contested = self._store.gpus.contested(hotkey)
        full = set(gpu_uuids) - young or set(gpu_uuids) & contested
        return self._limits.profile if full else self._limits.periodic

    def require(self, hotkey: str, gpu_uuids: Sequence[str]) -> str | None:
        """Return as what class admitted GPUs count; None where no attestation is needed.

        Raises:
            Conflict: ``not_admitted``, ``gpu_contested``, ``gpu_uncalibrated``, ``wrong_gpus``.
        """
        if not self._limits.max_age_s:
            return None
        if contested := set(gpu_uuids) & self._store.gpus.contested(hotkey):
            raise _contested(min(contested))
        since_s = self._clock.now_s() - self._limits.max_age_s
        fresh = {a.gpu_uuid: a for a in self._admitted(hotkey, since_s)}
        for gpu_uuid in gpu_uuids:
            if gpu_uuid not in fresh:
                raise Conflict(
                    "not_admitted",
                    f"GPU {gpu_uuid} has no accepted node attestation that is fresh",
                    hint="launch the system chute that the wanted list names, on all idle GPUs",
                )
        counts = {fresh[gpu_uuid].counts_as for gpu_uuid in gpu_uuids}
        if "" in counts:
            raise Conflict(
                "gpu_uncalibrated",
                "the figures of a GPU reach those of no calibrated class",
                hint="its class needs a reference: docs/graval.md, how to add a class",
            )
        if len(counts) != 1:
            raise Conflict("wrong_gpus", "these GPUs count as different classes")
        return counts.pop()

    def check_called(self, hotkey: str, gpu_uuids: Sequence[str]) -> None:
        """Refuse GPUs that are called to a round: they come to it, or take up nothing.

        Raises:
            Conflict: ``not_admitted``.
        """
        if not self._limits.max_age_s:
            return
        if called := set(gpu_uuids) & self._called_up(hotkey):
            raise Conflict(
                "not_admitted",
                f"GPU {min(called)} is called to a round that has not ended",
                hint="launch the system chute that the wanted list names, on all idle GPUs",
            )

    def check_tries(self, hotkey: str, gpu_uuids: Sequence[str]) -> None:
        """Refuse GPUs that failed lately, or were late more often than fresh tries allow.

        Raises:
            Conflict: ``proof_failed_lately``, ``proof_tries_used``.
        """
        now_s = self._clock.now_s()
        longest_s = max(HOUR_S, self._limits.failed_block_s)
        late: Counter[str] = Counter()
        for proof in self._store.proofs.by_miner(hotkey, now_s - longest_s):
            for gpu in proof.gpus:
                if gpu.gpu_uuid not in gpu_uuids:
                    continue
                if gpu.failed and now_s - proof.at_s < self._limits.failed_block_s:
                    raise Conflict(
                        "proof_failed_lately",
                        f"GPU {gpu.gpu_uuid} failed a challenge: {gpu.reason.value}",
                        hint=f"it may try again at {proof.at_s + self._limits.failed_block_s}",
                    )
                if gpu.reason is Reason.PROOF_LATE and now_s - proof.at_s < HOUR_S:
                    late[gpu.gpu_uuid] += 1
        for gpu_uuid, times in late.items():
            if times > FRESH_TRIES:
                raise Conflict(
                    "proof_tries_used",
                    f"GPU {gpu_uuid} was late {times} times within an hour",
                    hint="is it busy or throttled? It may try again later",
                )

    def judged(self, launch: Launch, proof: Proof) -> None:
        """Draw the consequences of a proof, accepted or not."""
        self.summonses.judged(launch, proof)
        if not proof.commitment:
            for gpu in proof.gpus:
                self._revoke_failed(launch, gpu)
            return
        for gpu in proof.gpus:
            if gpu.accepted:
                self._accepted(launch, proof, gpu)
            self._revoke_failed(launch, gpu)

    def _accepted(self, launch: Launch, proof: Proof, gpu: GpuVerdict) -> None:
        hotkey = launch.miner_hotkey
        admits = launch.admission and proof.profile == self._limits.profile and proof.accepted
        # a contest that was there before, and whose other claimants have gone, ends here
        if admits and gpu.gpu_uuid in self._store.gpus.contested(hotkey):
            if self._offered_by_rivals(hotkey, gpu.gpu_uuid):
                return
            self._store.gpus.settle(hotkey, gpu.gpu_uuid)
            logger.info("contest settled", gpu=gpu.gpu_uuid, miner=hotkey)
        self._saw(launch, proof, gpu)
        if admits:
            self._store.gpus.admit(
                Admission(
                    miner_hotkey=launch.miner_hotkey,
                    gpu_uuid=gpu.gpu_uuid,
                    gpu_class=gpu.gpu_class,
                    counts_as=gpu.judged_as,
                    proof_id=proof.proof_id,
                    profile=proof.profile,
                    at_s=proof.at_s,
                    proven_at_s=proof.at_s,
                )
            )
        elif proof.scope != "light":
            self._store.gpus.proven(launch.miner_hotkey, gpu.gpu_uuid, proof.at_s)

    def _saw(self, launch: Launch, proof: Proof, gpu: GpuVerdict) -> None:
        keys = [gpu.gpu_uuid]
        if gpu.pci_bus_id:
            keys.append(f"{gpu.host}/{gpu.pci_bus_id}")
        for key in keys:
            hotkeys = self._store.gpus.saw(
                Sighting(
                    key=key,
                    gpu_uuid=gpu.gpu_uuid,
                    miner_hotkey=launch.miner_hotkey,
                    at_s=proof.at_s,
                    not_before_s=proof.at_s - max(self._limits.max_age_s, HOUR_S),
                )
            )
            if hotkeys:
                logger.warning("gpu contested", gpu=gpu.gpu_uuid, key=key, hotkeys=hotkeys)

    def _revoke_failed(self, launch: Launch, gpu: GpuVerdict) -> None:
        if gpu.failed:
            self._store.gpus.revoke(launch.miner_hotkey, gpu.gpu_uuid)

    def _young(self, hotkey: str) -> tuple[Admission, ...]:
        again_s = self._limits.max_age_s * _AGAIN_NUMERATOR // _AGAIN_DENOMINATOR
        contested = self._store.gpus.contested(hotkey)
        admissions = self._admitted(hotkey, self._clock.now_s() - again_s)
        return tuple(a for a in admissions if a.gpu_uuid not in contested)

    def _admitted(self, hotkey: str, since_s: int) -> tuple[Admission, ...]:
        self.summonses.settle(hotkey)  # first: who let its excuse lapse is not admitted
        return self._store.gpus.admissions(hotkey, since_s)

    def _check_alone(self, hotkey: str, gpu_uuids: Sequence[str]) -> None:
        for gpu_uuid in gpu_uuids:
            if self._offered_by_rivals(hotkey, gpu_uuid):
                raise _contested(gpu_uuid)

    def _offered_by_rivals(self, hotkey: str, gpu_uuid: str) -> bool:
        """Tell whether another claimant of a contested GPU still has it in its inventory."""
        known = self._known()
        return any(
            gpu.uuid == other_uuid
            for other, other_uuid in self._store.gpus.rivals(hotkey, gpu_uuid)
            if other in known
            for gpu in known[other].gpus
        )


def _contested(gpu_uuid: str) -> Conflict:
    return Conflict(
        "gpu_contested",
        f"GPU {gpu_uuid} was shown under two hotkeys",
        hint="it serves again once one hotkey alone offers it and has passed a node attestation",
    )
