"""GPUs that were called to a round: each answers a challenge, or loses its admission.

A called GPU that stands in a launch when its round ends is excused for as long as that launch lasts
unproven. If it ends so, the excuse lapses, and the GPU has missed its round after all: taking up a
launch and letting it die is no way around one.

Path: rounds calls and ends; admissions asks here before it reads who is admitted. Invariant: of the
GPUs that were called to a round that ended, those are admitted that have answered since (rightly or
late, and late ones are counted) or whose launch can still answer.
"""

from collections.abc import Iterable, Mapping

from loguru import logger

from chutes_core.validator.domain.gpus import Summons
from chutes_core.validator.domain.launches import Launch, LaunchState, Reason
from chutes_core.validator.domain.verdicts import GpuVerdict, Proof
from chutes_core.validator.store.database import Store

_UNPROVEN = (LaunchState.REQUESTED, LaunchState.LISTENING, LaunchState.CHALLENGED)


class Summonses:
    """Keeps who owes an answer; all of it in the store, so a restart excuses nobody."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def call(self, called: Mapping[str, Iterable[str]]) -> None:
        """Take note that a round calls these GPUs, by hotkey."""
        for hotkey, uuids in called.items():
            for gpu_uuid in uuids:
                self._store.summonses.put(Summons(hotkey, gpu_uuid))

    def end(self, released: Mapping[str, Iterable[str]]) -> None:
        """End a round: who has answered nothing and stands in no launch has missed it.

        Args:
            released: GPUs that owe this round nothing any more, by hotkey.
        """
        with self._store.transaction():
            for hotkey, uuids in released.items():
                for gpu_uuid in uuids:
                    self._store.summonses.drop(hotkey, gpu_uuid)
            for summons in self._store.summonses.all():
                if not summons.launch_id:
                    self._bind(summons)

    def abandon(self) -> None:
        """Forget a round that broke: nobody is held to it."""
        self._store.summonses.drop_unbound()

    def settle(self, miner_hotkey: str | None = None) -> None:
        """Take the admission of GPUs whose excuse has lapsed; of one miner, or of all."""
        for summons in self._store.summonses.all(miner_hotkey):
            if summons.launch_id:
                with self._store.transaction():
                    self._settle(summons)

    def judged(self, launch: Launch, proof: Proof) -> None:
        """Release the GPUs that have answered in a proof."""
        for gpu in proof.gpus:
            if gpu.failed or (proof.commitment and _answered(gpu)):
                self._store.summonses.drop(launch.miner_hotkey, gpu.gpu_uuid)

    def _bind(self, summons: Summons) -> None:
        hotkey, gpu_uuid = summons.miner_hotkey, summons.gpu_uuid
        launch_id = self._store.launches.busy_gpus(hotkey).get(gpu_uuid)
        if launch_id is None:
            self._missed(summons)
            return
        self._store.summonses.put(Summons(hotkey, gpu_uuid, launch_id))
        self._settle(Summons(hotkey, gpu_uuid, launch_id))

    def _settle(self, summons: Summons) -> None:
        launch = self._store.launches.get(summons.launch_id)
        if launch is not None and launch.state in _UNPROVEN:
            return
        if launch is not None and (launch.proof_id or launch.reason is Reason.VALIDATOR_RESTARTED):
            self._store.summonses.drop(summons.miner_hotkey, summons.gpu_uuid)
            return  # it was proven, or it was we who ended it
        self._missed(summons)

    def _missed(self, summons: Summons) -> None:
        hotkey, gpu_uuid = summons.miner_hotkey, summons.gpu_uuid
        self._store.summonses.drop(hotkey, gpu_uuid)
        self._store.gpus.revoke(hotkey, gpu_uuid)
        logger.warning("gpu missed its round", gpu=gpu_uuid, miner=hotkey, launch=summons.launch_id)


def _answered(gpu: GpuVerdict) -> bool:
    return gpu.accepted or gpu.reason is Reason.PROOF_LATE
