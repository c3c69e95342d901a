"""How far the images are that are being fetched: bytes of how many, and from where it went on.

Path: archives (a file from a validator) and EngineImages (an engine's pull) -> here -> log, status,
metrics. Invariant: what stands here is under way; an end, good or bad, takes it away and is told
once, with what was moved. Written from the engine's threads too: a number is set at once or not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from loguru import logger

from chutes_core.base.clock import Clock, SystemClock

TELL_S = 10.0
"""So often the log is told of one that takes long."""
Source = Literal["archive", "registry"]


@dataclass
class Pull:
    """One image under way; ``total_bytes`` is 0 while it is not known.

    ``had_bytes`` were here before: it was taken up where it had broken off.
    """

    image_id: str
    name: str
    source: Source
    total_bytes: int
    had_bytes: int
    got_bytes: int
    began_us: int
    told_us: int

    @property
    def percent(self) -> int:
        """Return how much is here; 0 while the total is not known."""
        return min(100, 100 * self.got_bytes // self.total_bytes) if self.total_bytes else 0


class Pulls:
    """The images that are being fetched."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._under_way: dict[int, Pull] = {}
        self._next = 0

    def under_way(self) -> tuple[Pull, ...]:
        """Return what is being fetched, the oldest first."""
        return tuple(self._under_way.values())

    @contextmanager
    def fetching(
        self,
        image_id: str,
        name: str,
        source: Source,
        *,
        total_bytes: int = 0,
        had_bytes: int = 0,
    ) -> Iterator[Pull]:
        """Show an image as being fetched for the duration of the block."""
        now_us = self._clock.monotonic_us()
        pull = Pull(image_id, name, source, total_bytes, had_bytes, had_bytes, now_us, now_us)
        key, self._next = self._next, self._next + 1
        self._under_way[key] = pull
        log = logger.bind(image=name, source=source, bytes=total_bytes or None)
        if had_bytes:
            log.bind(had=had_bytes).info("image transfer goes on where it broke off")
        else:
            log.info("image transfer began")
        try:
            yield pull
        except BaseException:
            log.bind(got=pull.got_bytes).warning("image transfer broke off")
            raise
        else:
            seconds = round((self._clock.monotonic_us() - now_us) / 1e6, 1)
            moved = pull.got_bytes - had_bytes
            log.bind(moved=moved, seconds=seconds).info("image transfer was finished")
        finally:
            del self._under_way[key]

    def moved(self, pull: Pull, got_bytes: int, total_bytes: int | None = None) -> None:
        """Take note of how far one is; now and then the log is told."""
        pull.got_bytes = got_bytes
        if total_bytes is not None:
            pull.total_bytes = total_bytes
        now_us = self._clock.monotonic_us()
        if now_us - pull.told_us >= TELL_S * 1e6:
            pull.told_us = now_us
            logger.bind(
                image=pull.name,
                got=pull.got_bytes,
                bytes=pull.total_bytes or None,
                percent=pull.percent,
                moved=pull.got_bytes - pull.had_bytes,
                seconds=round((now_us - pull.began_us) / 1e6, 1),
            ).info("image transfer goes on")
