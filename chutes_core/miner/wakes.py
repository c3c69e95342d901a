"""Listens at every validator for more to be wanted, so that a round begins then and not at a poll.

Path: directory -> `listen`, a loop's call -> validators' GET /miner/wake -> `again` -> app.py's
round. Invariants: this is a hint and nothing else: whatever is lost here, the poll finds; and no
validator is heard more often than `PER_S` in the long run, whatever it answers, for each round
costs this miner a call to every validator. What comes more often is one wake-up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from loguru import logger

from chutes_core.base.clock import Clock, SystemClock
from chutes_core.base.errors import ChutesError, NotFound
from chutes_core.base.loops import Signal
from chutes_core.miner.discovery import Validator
from chutes_core.miner.pace import Pace
from chutes_core.miner.validator_api import ValidatorApi

RETRY_S = 5.0
UNKNOWN_RETRY_S = 300.0
"""For a validator that does not know the call: an older one."""
PER_S = 1
BURST = 4
"""So many answers of a validator at once; then `PER_S` a second."""
_LOOK_S = 1.0


class Wakes:
    """One waiting call at each validator.

    Args:
        api: to ask them.
        validators: which there are now.
        again: set where another round has something to do.
        clock: monotonic.
        sleep: waits for so many seconds of that clock.
    """

    def __init__(
        self,
        api: ValidatorApi,
        validators: Callable[[], Sequence[Validator]],
        again: Signal,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._validators = validators
        self._again = again
        self._pace = Pace(clock or SystemClock(), per_s=PER_S, burst=BURST)
        self._sleep = sleep
        self._calls: dict[Validator, asyncio.Task[None]] = {}
        self._numbers: dict[str, int] = {}

    async def listen(self) -> None:
        """See to it that every validator is listened to; return after a while, to be called anew.

        What a call raises comes out here, for the loop's edge to count.
        """
        try:
            known = self._validators()
            for gone in [validator for validator in self._calls if validator not in known]:
                self._calls.pop(gone).cancel()
            for validator in known:
                if validator not in self._calls:
                    self._calls[validator] = asyncio.ensure_future(self._one(validator))
            if not self._calls:
                await asyncio.sleep(_LOOK_S)
                return
            done, _ = await asyncio.wait(
                self._calls.values(), timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            for call in self._calls.values():
                call.cancel()
            await asyncio.gather(*self._calls.values(), return_exceptions=True)
            raise
        self._calls = {who: call for who, call in self._calls.items() if call not in done}
        for call in done:
            call.result()

    async def _one(self, validator: Validator) -> None:
        after = self._numbers.get(validator.hotkey, 0)
        try:
            number = await self._api.wake(validator, after)
        except ChutesError as error:
            logger.bind(validator=validator.hotkey, code=error.code).debug("no wake-up was heard")
            await asyncio.sleep(UNKNOWN_RETRY_S if isinstance(error, NotFound) else RETRY_S)
            return
        while (wait_s := self._pace.wait_s(validator.hotkey)) > 0:
            await self._sleep(wait_s)
        self._numbers[validator.hotkey] = number
        if after and number != after:
            self._again.set()
