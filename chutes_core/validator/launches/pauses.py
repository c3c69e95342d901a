"""Which active instances get no calls for a moment, because they are being challenged.

Kept in memory: after a restart nothing is paused. Invariant: what `holding` pauses it releases.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Pauses:
    """Launch ids that the snapshot leaves out."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()

    def __contains__(self, launch_id: object) -> bool:
        return launch_id in self._held

    @contextmanager
    def holding(self, launch_ids: Sequence[str]) -> Iterator[None]:
        """Pause launches for the duration of the block."""
        self._held.update(launch_ids)
        try:
            yield
        finally:
            self._held.subtract(launch_ids)
            self._held = +self._held
