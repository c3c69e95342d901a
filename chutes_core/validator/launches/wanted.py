"""What is wanted now, and whether one more launch of a chute is.

Invariant: the wanted list and the check of a launch request come from the same count, so a miner
that asks for what was listed is refused only when another miner came first.
"""

from collections import Counter
from collections.abc import Iterable

from chutes_core.base.errors import Conflict, Invalid
from chutes_core.validator.autoscale.wanted import Load, bounty, target
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.domain.launches import Launch, LaunchState
from chutes_core.validator.domain.money import rao_per_hour
from chutes_core.validator.launches.ports import DemandView
from chutes_core.validator.store.database import Store
from chutes_core.wire.control import WantedChute

_LEAVING = (LaunchState.DRAINING, LaunchState.GONE)


class Wanted:
    """Counts what there is against what demand asks for."""

    def __init__(self, *, store: Store, demand: DemandView, tao_usd_micros: int) -> None:
        self._store = store
        self._demand = demand
        self._tao_usd_micros = tao_usd_micros

    def listed(self, now_s: int) -> list[WantedChute]:
        """Return every chute that misses instances."""
        loads, demand = loads_of(self._for_callers()), self._demand()
        wanted = []
        for chute in self._store.chutes.all_live():
            missing = self._missing(chute, loads, now_s)
            if missing > 0:
                callers = demand.get(chute.chute_id, ChuteDemand())
                wanted.append(self._describe(chute, missing, bounty(callers, now_s=now_s)))
        return wanted

    def target_of(self, chute: Chute, load: Load, now_s: int) -> int:
        """Return how many instances a chute should have now beside those that run jobs.

        Each run that waits wants one, but no chute has more jobs at once than `max_instances`.
        """
        claimed = self._store.jobs.claimed()
        busy = sum(
            launch.launch_id in claimed
            for launch in self._store.launches.open_of_chute(chute.chute_id)
        )
        waiting = self._store.jobs.waiting(chute.chute_id)
        for_jobs = max(0, min(waiting, chute.max_instances - busy))
        return self.for_callers(chute, load, now_s) + for_jobs

    def for_callers(self, chute: Chute, load: Load, now_s: int) -> int:
        """Return how many instances a chute should have for the callers of its cords."""
        if not chute.cords:
            return 0
        return target(chute, self._demand().get(chute.chute_id, ChuteDemand()), load, now_s=now_s)

    def require(self, chute_id: str, version: str, gpu_class: str, gpus: int, now_s: int) -> Chute:
        """Return the chute if one more launch of it, on such GPUs, is wanted.

        Raises:
            Conflict: ``not_wanted``.
            Invalid: ``wrong_gpus``.
        """
        chute = self._store.chutes.get(chute_id)
        if chute is None or chute.version != version:
            raise Conflict(
                "not_wanted", "no such chute, or a newer version", hint="ask for the wanted list"
            )
        loads = loads_of(self._for_callers())
        if self._missing(chute, loads, now_s) < 1:
            raise Conflict(
                "not_wanted", f"{chute.name} has its instances", hint="another miner came first"
            )
        admissible = {gpu.short_name for gpu in chute.selector.admissible()}
        if gpus != chute.selector.gpu_count or gpu_class not in admissible:
            raise Invalid(
                "wrong_gpus",
                f"{chute.name} needs {chute.selector.gpu_count} of {sorted(admissible)}",
            )
        return chute

    def _for_callers(self) -> list[Launch]:
        """Return the open launches that no job has for itself."""
        claimed = self._store.jobs.claimed()
        launches = self._store.launches.open()
        return [launch for launch in launches if launch.launch_id not in claimed]

    def _missing(
        self,
        chute: Chute,
        loads: dict[tuple[str, str], Load],
        now_s: int,
    ) -> int:
        if self._store.notices.due(chute.user_id, now_s):
            return 0
        load = loads.get((chute.chute_id, chute.version), Load())
        return self.target_of(chute, load, now_s) - load.active - load.coming

    def _describe(self, chute: Chute, missing: int, urgency: int) -> WantedChute:
        admissible = chute.selector.admissible()
        price = rao_per_hour(
            admissible[0].usd_micros_per_hour, chute.selector.gpu_count, self._tao_usd_micros
        )
        return WantedChute(
            chute_id=chute.chute_id,
            version=chute.version,
            image_id=chute.image_id,
            gpu_count=chute.selector.gpu_count,
            gpu_classes=tuple(gpu.short_name for gpu in admissible),
            rao_per_hour=price,
            missing=missing,
            bounty=urgency,
        )


def loads_of(launches: Iterable[Launch]) -> dict[tuple[str, str], Load]:
    """Count active and coming launches by (chute id, version)."""
    active: Counter[tuple[str, str]] = Counter()
    coming: Counter[tuple[str, str]] = Counter()
    for launch in launches:
        key = (launch.chute_id, launch.version)
        if launch.state is LaunchState.ACTIVE:
            active[key] += 1
        elif launch.state not in _LEAVING:
            coming[key] += 1
    return {key: Load(active[key], coming[key]) for key in {*active, *coming}}
