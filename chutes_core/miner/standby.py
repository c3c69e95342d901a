"""Which instances to hold ready without a launch: those of what was launched last, on idle GPUs.

Path: launcher -> `note`; a loop of app.py -> `keep` -> Runtime.stand_by. Invariants: never more
stand-bys than GPUs are idle, so that they live on memory that no instance was promised; none while
the miner drains; what failed is left alone until it is launched again.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from chutes_core.base.clock import Clock
from chutes_core.miner.runtime.base import InstanceSpec, Runtime, StandBy
from chutes_core.wire.system import NO_IMAGE_SHA256

REMEMBERED_S = 3600
"""How long after its launch an image is held ready."""


class StandBys:
    """What was launched lately, and what of it stands by.

    Args:
        runtime: holds them.
        most: so many at most; 0 for none.
        graval_python: the interpreter of provers outside of containers.
        idle: how many GPUs serve nobody now.
        clock: monotonic.
        binds_cache: the runtime mounts a chute's model cache when it makes a stand-by, not later.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        most: int,
        graval_python: str,
        idle: Callable[[], int],
        clock: Clock,
        binds_cache: bool = False,
    ) -> None:
        self._runtime = runtime
        self._most = most
        self._graval_python = graval_python
        self._idle = idle
        self._clock = clock
        self._binds_cache = binds_cache
        self._lately: dict[StandBy, int] = {}
        self._up: frozenset[StandBy] = frozenset()

    def note(self, spec: InstanceSpec) -> None:
        """Take note of a launch: the like of it is likely to come again."""
        if spec.image.sha256 == NO_IMAGE_SHA256:
            return
        stand_by = StandBy(
            image=spec.image,
            gpu_count=spec.gpu_count,
            allow_egress=spec.allow_egress,
            declared=not spec.device_uuids,
            graval_python=self._graval_python,
            cache=spec.cache if self._binds_cache else None,
        )
        self._lately.pop(stand_by, None)
        self._lately[stand_by] = self._clock.monotonic_us()

    async def keep(self) -> None:
        """Hold ready what fits onto the idle GPUs, the newest first."""
        now_us, left = self._clock.monotonic_us(), self._idle()
        old = [s for s, at in self._lately.items() if now_us - at > REMEMBERED_S * 1_000_000]
        for stand_by in old:
            del self._lately[stand_by]
        wanted: list[StandBy] = []
        for stand_by in reversed(self._lately):
            if len(wanted) < self._most and stand_by.gpu_count <= left:
                wanted.append(stand_by)
                left -= stand_by.gpu_count
        self._up |= frozenset(wanted)  # before they are: what comes up has its folder at once
        failed = await self._runtime.stand_by(wanted)
        for stand_by in failed:
            self._lately.pop(stand_by, None)
        self._up = frozenset(wanted) - frozenset(failed)

    def folders(self) -> Mapping[Path, int]:
        """Return the model folders that are mounted into stand-bys -> how many GPUs' part."""
        found: Counter[Path] = Counter()
        for stand_by in self._up:
            if stand_by.cache is not None:
                found[stand_by.cache] += stand_by.gpu_count
        return found

    def shun(self, folder: Path) -> None:
        """Let nothing stand by with this folder from the next `keep` on."""
        for stand_by in [one for one in self._lately if one.cache == folder]:
            del self._lately[stand_by]

    async def end(self) -> None:
        """End them all; none comes again."""
        self._most = 0
        await self._runtime.stand_by(())
        self._up = frozenset()
