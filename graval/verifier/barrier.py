"""The barrier between the legs: leg 2 goes out when every GPU has filled its memory, or D1 passed.

All memories must be full at once, or one GPU could pose as two by turns. Pure: the caller brings
the time. Invariant: `opens_at_us` never moves backwards, and it is the same for every GPU.
"""

from graval.errors import OutOfRange


class Barrier:
    """Leg-1 arrivals of the GPUs that are challenged together.

    Args:
        gpu_count: how many got leg 1.
        sent_us: when leg 1 was sent, on the caller's monotonic clock.
        deadline_us: the largest D1 among them, as a duration.

    Raises:
        OutOfRange: no GPUs.
    """

    def __init__(self, gpu_count: int, *, sent_us: int, deadline_us: int) -> None:
        if gpu_count < 1:
            raise OutOfRange("gpu_count", "a barrier waits for at least one GPU")
        self._waiting = set(range(gpu_count))
        self._expires_us = sent_us + deadline_us

    @property
    def waiting(self) -> frozenset[int]:
        """The GPU indices that have not answered leg 1."""
        return frozenset(self._waiting)

    @property
    def expires_us(self) -> int:
        """When it opens even for an incomplete group."""
        return self._expires_us

    def answered(self, gpu_index: int) -> None:
        """Leg 1 of this GPU was answered, rightly or not."""
        self._waiting.discard(gpu_index)

    def is_open(self, now_us: int) -> bool:
        """Whether leg 2 may be sent now."""
        return not self._waiting or now_us >= self._expires_us
