"""Which active instances get no calls for a moment, because they are being challenged.

Kept in memory: after a restart nothing is paused. Invariant: what `holding` pauses it releases, and
what is `Away` comes back at its end at the latest.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from typing_extensions import Self

from chutes_core.validator.launches.ports import Changed


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


class Away:
    """Instances that are paused together and may come back one by one.

    Args:
        pauses: where they are held.
        launch_ids: who they are.
        changed: told that some have come back.
    """

    def __init__(self, pauses: Pauses, launch_ids: Sequence[str], changed: Changed) -> None:
        self._pauses = pauses
        self._held = {launch_id: contextlib.ExitStack() for launch_id in launch_ids}
        self._changed = changed
        self._untold = False
        self._telling: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        for launch_id, stack in self._held.items():
            stack.enter_context(self._pauses.holding([launch_id]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stack in self._held.values():
            stack.close()

    def back(self, launch_id: str) -> None:
        """Let one have calls again."""
        self._held[launch_id].close()
        self._untold = True
        if self._telling is None or self._telling.done():
            self._telling = asyncio.ensure_future(self._tell())

    async def settled(self) -> None:
        """Return when all that came back has been told."""
        if self._telling is not None:
            await self._telling

    async def _tell(self) -> None:
        while self._untold:
            self._untold = False
            await self._changed()
