"""The prover's side of the protocol: one state machine over a backend, without I/O.

Invariant: a leg 2 is answered only on the fill of the leg 1 that it names, and leg 1's seed is
derived here from the context that came with it, never taken from the wire.
"""

from collections.abc import Iterable

from graval import prf
from graval.challenge import Answer, DeviceInfo, Leg1, Leg2
from graval.errors import ProtocolViolation
from graval.messages import RowsFor, Warm
from graval.profile import PROFILES
from graval.prover.backend import Backend


class Prover:
    """Answers legs on one device.

    Args:
        backend: the device, opened and not yet warm.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._device: DeviceInfo | None = None
        self._seed = b""
        self._challenge_id = b""

    def warm_up(self) -> Warm:
        """Warm the device up and describe it."""
        self._backend.warm_up()
        self._device = self._backend.device_info()
        rows = [RowsFor(p.name, self._backend.rows_for(p)) for p in PROFILES.values()]
        return Warm(device=self._device, rows=tuple(rows))

    def answer_leg1(self, leg: Leg1) -> Answer:
        """Fill the memory and find the first needles.

        Raises:
            ProtocolViolation: the leg is for another device.
            NotEnoughMemory: the device cannot hold so many rows.
        """
        self._challenge_id = b""
        if leg.context.device != self._device:
            raise ProtocolViolation("other_device", "the challenge is for another device")
        self._seed = leg.seed
        self._backend.fill(self._seed, leg.layers, leg.context.rows)
        self._challenge_id = leg.challenge_id
        return self._answer(1, run_chain(self._backend, leg.key, leg.tags), leg.to_bytes())

    def answer_leg2(self, leg: Leg2) -> Answer:
        """Scan the memory stage by stage.

        Raises:
            ProtocolViolation: the leg belongs to another challenge, or none is filled.
        """
        if not self._challenge_id or leg.challenge_id != self._challenge_id:
            raise ProtocolViolation("other_challenge", "this leg 2 belongs to another challenge")
        return self._answer(2, run_chain(self._backend, leg.key, leg.tags), leg.to_bytes())

    def close(self) -> None:
        """Give the memory back."""
        self._backend.release()

    def _answer(self, number: int, chain_end: bytes, leg: bytes) -> Answer:
        digest = prf.answer_digest(chain_end, self._seed, leg)
        return Answer(self._challenge_id, number, digest)


def run_chain(backend: Backend, key: bytes, stages: Iterable[bytes]) -> bytes:
    """The key after the last stage: find each stage's rows, hash them into the next key."""
    for sent in stages:
        tags = prf.tags_from_bytes(sent)  # (slots,) masked
        asked = prf.query(key, len(tags))
        found = backend.find(asked, tags ^ asked.masks)
        key = prf.next_key(key, found.indices, found.rows)
    return key
