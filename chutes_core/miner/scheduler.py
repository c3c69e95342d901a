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
from chutes_core.wire.control import WantedChute


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
    ) -> None:
        self._gpus = gpus
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
        wanted = await self._wanted(validators)
        block = self._view.block
        self._book.renew(
            block=block,
            gpus=[gpu.uuid for gpu in self._gpus],
            stakes={validator.hotkey: validator.stake_rao for validator in validators},
            busy=self._deployer.busy(),
            eager=frozenset(hotkey for hotkey, chutes in wanted.items() if chutes),
        )
        planned = plan(self._world(block, wanted))
        self._apply(planned, block)
        return planned

    async def _wanted(self, validators: Sequence[Validator]) -> dict[str, tuple[WantedChute, ...]]:
        async def ask(validator: Validator) -> tuple[str, tuple[WantedChute, ...]]:
            try:
                return validator.hotkey, (await self._api.wanted(validator)).wanted
            except ChutesError as error:
                logger.bind(validator=validator.hotkey, code=error.code).warning(
                    "wanted list was not read: {}", error.message
                )
                return validator.hotkey, ()

        return dict(await asyncio.gather(*(ask(validator) for validator in validators)))

    def _world(self, block: int, wanted: dict[str, tuple[WantedChute, ...]]) -> World:
        lessees = self._book.lessees(block)
        taken = self._deployer.launch_ids()
        return World(
            slots=tuple(
                Slot(gpu.uuid, gpu.gpu_class, lessees.get(gpu.uuid), taken.get(gpu.uuid))
                for gpu in self._gpus
            ),
            running=self._deployer.running(),
            wanted=wanted,
            warm_images=self._runtime.warm_images(),
            backing_off=self._backoff.waiting(),
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
        leases = self._book.covering(action.gpu_uuids, action.validator_hotkey, block)
        if validator is not None and len(leases) == len(action.gpu_uuids):
            self._deployer.begin(action, validator, leases)
