"""One round of the miner's work: what is wanted, leases that are due, the plan, its actions.

Called by a loop of app.py. Invariant: a launch is only begun with leases that hold at the block of
the last chain reading.
"""

import asyncio
from collections.abc import Sequence

from loguru import logger

from chutes_core.base.errors import ChutesError
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.chain_view import ChainView
from chutes_core.miner.deployer import Deployer
from chutes_core.miner.discovery import Directory, Validator
from chutes_core.miner.inventory import Gpu
from chutes_core.miner.leases import LeaseBook
from chutes_core.miner.placement import Launch, NoFit, Plan, Slot, Stop, World, plan
from chutes_core.miner.runtime.base import Runtime
from chutes_core.miner.validator_api import ValidatorApi
from chutes_core.wire.control import WantedList


class Scheduler:
    """Joins the rooms' parts into one round."""

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
        self._unplaced: tuple[NoFit, ...] = ()

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
        block = self._view.block
        self._book.renew(
            block=block,
            gpus=[gpu.uuid for gpu in self._gpus],
            stakes={validator.hotkey: validator.stake_rao for validator in validators},
            busy=self._deployer.busy(),
            eager=frozenset(hotkey for hotkey, listed in lists.items() if listed.wanted),
        )
        planned = plan(self._world(block, lists))
        self._apply(planned, block)
        return planned

    async def _wanted(self, validators: Sequence[Validator]) -> dict[str, WantedList]:
        """Return the list of every validator that answers."""

        async def ask(validator: Validator) -> WantedList | None:
            try:
                return await self._api.wanted(validator)
            except ChutesError as error:
                logger.bind(validator=validator.hotkey, code=error.code).warning(
                    "wanted list was not read: {}", error.message
                )
                return None

        lists = await asyncio.gather(*(ask(validator) for validator in validators))
        answered = zip(validators, lists, strict=True)
        return {validator.hotkey: listed for validator, listed in answered if listed is not None}

    def _world(self, block: int, lists: dict[str, WantedList]) -> World:
        lessees = self._book.lessees(block)
        taken = self._deployer.launch_ids()
        return World(
            slots=tuple(
                Slot(gpu.uuid, gpu.gpu_class, lessees.get(gpu.uuid), taken.get(gpu.uuid))
                for gpu in self._gpus
            ),
            running=self._deployer.running(),
            wanted={hotkey: listed.wanted for hotkey, listed in lists.items()},
            warm_images=self._runtime.warm_images(),
            backing_off=self._backoff.waiting(),
            admissions={
                hotkey: listed.admission
                for hotkey, listed in lists.items()
                if listed.admission is not None
            },
            prove_beside=self._prove_beside,
        )

    def _apply(self, planned: Plan, block: int) -> None:
        for action in planned.actions:
            if isinstance(action, Stop):
                self._deployer.stop(action)
            else:
                self._begin(action, block)
        if planned.unplaced != self._unplaced:
            self._unplaced = planned.unplaced
            for miss in planned.unplaced:
                logger.bind(
                    validator=miss.validator_hotkey, chute_id=miss.chute_id, reason=miss.reason
                ).info("chute was not placed")

    def _begin(self, action: Launch, block: int) -> None:
        validator = self._directory.get(action.validator_hotkey)
        gpus = (*action.gpu_uuids, *action.idle_gpus)
        leases = self._book.covering(gpus, action.validator_hotkey, block)
        if validator is not None and len(leases) == len(gpus):
            self._deployer.begin(action, validator, leases)
