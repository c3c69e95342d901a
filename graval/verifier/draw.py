"""The auditable choice: everything random in a challenge is a PRF of one secret.

The PRF is keyed BLAKE2b in counter mode over (purpose, seed, counter). The secret's hash travels
in leg 1; once it is revealed, anyone can repeat every draw. Invariant: a draw depends on nothing
but (secret, seed, purpose), so the verifier cannot choose needles after the fact.
"""

import hashlib
from dataclasses import dataclass

from graval.challenge import TAG_BYTES, domain_hash
from graval.errors import OutOfRange

MIN_SECRET_BYTES = 32
MAX_SECRET_BYTES = 64  # the limit of a BLAKE2b key
_BLOCK_BYTES = 64


@dataclass(frozen=True)
class StagePlan:
    """One stage before its key is known.

    Args:
        needles: distinct row indices, ascending.
        slots: which tag slot holds each needle, in the needles' order; the rest are decoys.
        decoys: random bytes for every slot, 8 each; those of real slots are not used.
    """

    needles: tuple[int, ...]
    slots: tuple[int, ...]
    decoys: bytes


def commit(secret: bytes) -> bytes:
    """The hash of a secret that travels in leg 1 before anything is answered."""
    return domain_hash("commitment", secret)


class Draw:
    """Draws of one secret for one seed.

    Raises:
        OutOfRange: the secret has fewer than 32 or more than 64 bytes.
    """

    def __init__(self, secret: bytes, seed: bytes) -> None:
        if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
            raise OutOfRange("secret", "a secret has 32 to 64 bytes")
        self._secret = secret
        self._seed = seed

    def stream(self, purpose: str) -> "Stream":
        """An endless stream of pseudorandom bytes for one purpose."""
        return Stream(self._secret, f"graval/1 draw {purpose}\0".encode() + self._seed)

    def stage(self, purpose: str, *, rows: int, slots: int, real: tuple[int, int]) -> StagePlan:
        """Choose a stage's needles, their slots and the decoys.

        Args:
            purpose: unique in the challenge, e.g. ``leg2 stage 3``.
            rows: needles are below this.
            slots: tag slots of the stage.
            real: least and largest number of needles.
        """
        stream = self.stream(purpose)
        least, largest = real
        count = least + stream.below(largest - least + 1)
        needles = sorted(stream.distinct(count, rows))
        places = stream.distinct(count, slots)
        return StagePlan(tuple(needles), tuple(places), stream.take(slots * TAG_BYTES))


class Stream:
    """Pseudorandom bytes, taken in order."""

    def __init__(self, secret: bytes, label: bytes) -> None:
        self._secret = secret
        self._label = label
        self._counter = 0
        self._buffer = b""

    def take(self, size_bytes: int) -> bytes:
        """The next bytes of the stream."""
        while len(self._buffer) < size_bytes:
            block = self._label + self._counter.to_bytes(8, "big")
            self._buffer += hashlib.blake2b(
                block, key=self._secret, digest_size=_BLOCK_BYTES
            ).digest()
            self._counter += 1
        taken, self._buffer = self._buffer[:size_bytes], self._buffer[size_bytes:]
        return taken

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound), by rejection."""
        limit = (1 << 64) // bound * bound
        while True:
            value = int.from_bytes(self.take(8), "big")
            if value < limit:
                return value % bound

    def distinct(self, count: int, bound: int) -> list[int]:
        """So many distinct uniform integers in [0, bound), in order of drawing."""
        chosen: list[int] = []
        while len(chosen) < count:
            value = self.below(bound)
            if value not in chosen:
                chosen.append(value)
        return chosen
