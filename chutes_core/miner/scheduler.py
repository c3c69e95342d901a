"""One round of the miner's work: what is wanted, leases that are due, the plan, its actions.

Called by a loop of app.py. Invariants: a launch is only begun with leases that hold at the block of
the last chain reading; and a lease is not prolonged for a validator that has not been heard for
`UNHEARD_S`, so that a miner that is cut off from it is free of it when the lease lapses.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from loguru import logger

from chutes_core.base.clock import Clock, SystemClock
from chutes_core.base.errors import ChutesError
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.chain_view import ChainView
from chutes_core.miner.departures import departures
from chutes_core.miner.deployer import Deployer
from chutes_core.miner.discovery import Directory, Validator
from chutes_core.miner.inventory import Gpu
from chutes_core.miner.leases import LeaseBook
from chutes_core.miner.placement import Launch, Plan, Slot, Stop, World, plan
from chutes_core.miner.runtime.base import Runtime
from chutes_core.miner.shares import to_return
from chutes_core.miner.validator_api import ValidatorApi
from chutes_core.wire import PROTOCOL_MAX, PROTOCOL_MIN
from chutes_core.wire.control import WantedList

UNHEARD_S = 600.0
MIN_RUN_S = 600.0


class Scheduler:
    """Joins the rooms' parts into one round.

    Args:
        gpus: of the node.
        view: the chain as last read.
        directory: the validators.
        book: of leases.
        runtime: for its warm images.
        deployer: carries out the plan.
        backoff: what failed lately.
        api: to ask validators.
        prove_beside: idle GPUs can prove beside an instance.
        unwell: GPUs that should run nothing now.
        warm_models: (validator, chute id) pairs whose models are here.
        min_run_s: the least time that an instance on a lent GPU gets.
        unheard_s: a silent validator's leases are prolonged for that long.
        clock: monotonic.
    """

    def __init__(
        self,
        *,
        gpus: Sequence[Gpu],
        view: ChainView,
        directory: Directory,
        book: LeaseBook,
        runtime: Runtime,
        deployer: Deployer,
        backoff: BackOff,
        api: ValidatorApi,
        prove_beside: bool = False,
        unwell: Callable[[], frozenset[str]] = frozenset,
        warm_models: Callable[[], frozenset[tuple[str, str]]] = frozenset,
        min_run_s: float = MIN_RUN_S,
        unheard_s: float = UNHEARD_S,
        clock: Clock | None = None,
    ) -> None:
        self._gpus = gpus
        self._prove_beside = prove_beside
        self._view = view
        self._directory = directory
        self._book = book
        self._runtime = runtime
        self._deployer = deployer
        self._backoff = backoff
        self._api = api
        self._unwell = unwell
        self._warm_models = warm_models
        self._min_run_s = min_run_s
        self._unheard_s = unheard_s
        self._clock = clock or SystemClock()
        self._heard_us: dict[str, int] = {}
        self.outdated: frozenset[str] = frozenset()
        """Validators that announced a protocol which this miner does not speak."""
        self.last: tuple[World, Plan] | None = None
        """The last world and its plan, for the operator's status."""

    def silent_s(self, validator_hotkey: str) -> float | None:
        """Return how long a validator has been silent; None where it was never heard."""
        heard_us = self._heard_us.get(validator_hotkey)
        return None if heard_us is None else (self._clock.monotonic_us() - heard_us) / 1e6

    async def learn(self, validators: Sequence[Validator]) -> None:
        """Take over own leases that newly found validators remember and this store has lost."""
        for validator in validators:
            try:
                adopted = self._book.adopt((await self._api.leases(validator)).leases)
            except ChutesError as error:
                logger.bind(validator=validator.hotkey, code=error.code).debug("leases not read")
                continue
            if adopted:
                logger.bind(validator=validator.hotkey, count=adopted).warning(
                    "own leases were learned back from a validator"
                )

    async def tick(self) -> Plan:
        """Do one round and return the plan that was applied."""
        validators = self._directory.validators
        lists = await self._wanted(validators)
        self._note_outdated(lists)
        block = self._view.block
        unwell = self._unwell()
        self._renew(validators, lists, block, unwell)
        world = self._world(block, lists, unwell)
        planned = plan(world)
        self._apply(planned, block)
        self.last = (world, planned)
        return planned

    def _renew(
        self,
        validators: Sequence[Validator],
        lists: dict[str, WantedList],
        block: int,
        unwell: frozenset[str],
    ) -> None:
        """Sign the leases that are due: none for a GPU that is unwell or a silent validator."""
        gpus = [gpu.uuid for gpu in self._gpus if gpu.uuid not in unwell]
        stakes = {v.hotkey: v.stake_rao for v in validators if v.hotkey not in self.outdated}
        missing = Counter[str]()
        for hotkey, listed in lists.items():
            if hotkey in stakes:
                missing[hotkey] = sum(c.missing * c.gpu_count for c in listed.wanted)
        lent = to_return(
            gpus,
            stakes,
            leased=self._book.last(block),
            tenants=self._deployer.books.tenants(self._clock.monotonic_us()),
            missing=missing,
            min_run_s=self._min_run_s,
        )
        busy = {
            gpu: hotkey
            for gpu, hotkey in self._deployer.busy().items()
            if gpu not in lent and self._is_heard(hotkey)
        }
        heard = {hotkey: stake for hotkey, stake in stakes.items() if self._is_heard(hotkey)}
        eager = frozenset(hotkey for hotkey, count in missing.items() if count)
        self._book.renew(block=block, gpus=gpus, stakes=heard, busy=busy, eager=eager)

    async def _wanted(self, validators: Sequence[Validator]) -> dict[str, WantedList]:
        """Return the list of every validator that answers."""

        async def ask(validator: Validator) -> WantedList | None:
            self._heard_us.setdefault(validator.hotkey, self._clock.monotonic_us())
            try:
                listed = await self._api.wanted(validator)
            except ChutesError as error:
                logger.bind(validator=validator.hotkey, code=error.code).warning(
                    "wanted list was not read: {}", error.message
                )
                return None
            self._heard_us[validator.hotkey] = self._clock.monotonic_us()
            return listed

        lists = await asyncio.gather(*(ask(validator) for validator in validators))
        answered = zip(validators, lists, strict=True)
        return {validator.hotkey: listed for validator, listed in answered if listed is not None}

    def _is_heard(self, validator_hotkey: str) -> bool:
        silent_s = self.silent_s(validator_hotkey)
        return silent_s is not None and silent_s <= self._unheard_s

    def _note_outdated(self, lists: dict[str, WantedList]) -> None:
        """Follow which validators speak this miner's protocol; the silent keep their last word."""
        outdated = set(self.outdated)
        for hotkey, listed in lists.items():
            said = listed.handshake
            speaks = said is None or (
                said.protocol_min <= PROTOCOL_MAX and said.protocol_max >= PROTOCOL_MIN
            )
            (outdated.discard if speaks else outdated.add)(hotkey)
        for hotkey in outdated - self.outdated:
            logger.bind(code="miner_outdated", validator=hotkey).error(
                "validator no longer speaks this miner's protocol: its instances are drained;"
                " update this checkout and restart the miner"
            )
        self.outdated = frozenset(outdated)

    def _world(self, block: int, lists: dict[str, WantedList], unwell: frozenset[str]) -> World:
        lessees = self._book.lessees(block)
        taken = self._deployer.launch_ids()
        running = self._deployer.running()
        return World(
            slots=tuple(
                Slot(
                    gpu.uuid,
                    gpu.gpu_class,
                    lessees.get(gpu.uuid),
                    taken.get(gpu.uuid),
                    gpu.uuid not in unwell,
                )
                for gpu in self._gpus
            ),
            running=running,
            wanted={hotkey: listed.wanted for hotkey, listed in lists.items()},
            warm_images=self._runtime.warm_images(),
            warm_models=self._warm_models(),
            backing_off=self._backoff.waiting(),
            admissions={
                hotkey: listed.admission
                for hotkey, listed in lists.items()
                if listed.admission is not None
            },
            prove_beside=self._prove_beside,
            departing=departures(
                running,
                promises=self._book.promises(block),
                block=block,
                unwell=unwell,
                outdated=self.outdated,
            ),
            outdated=self.outdated,
        )

    def _apply(self, planned: Plan, block: int) -> None:
        for action in planned.actions:
            if isinstance(action, Stop):
                self._deployer.stop(action)
            else:
                self._begin(action, block)
        before = self.last[1].unplaced if self.last else ()
        if planned.unplaced != before:
            for miss in planned.unplaced:
                logger.bind(
                    validator=miss.validator_hotkey, chute_id=miss.chute_id, reason=miss.reason
                ).info("chute was not placed")

    def _begin(self, action: Launch, block: int) -> None:
        validator = self._directory.get(action.validator_hotkey)
        gpus = (*action.gpu_uuids, *action.idle_gpus)
        leases = self._book.covering(gpus, action.validator_hotkey, block)
        if validator is not None and len(leases) == len(gpus):
            self._deployer.begin(action, validator, self._book.with_next(leases))
