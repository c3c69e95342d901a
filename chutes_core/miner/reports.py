"""What a miner tells a validator of a launch: it listens, it wants to leave, it is gone.

Invariant: a report that was not heard changes nothing here, so that a later round sees the same
state and tells it again; telling something twice changes nothing at the validator.
"""

import asyncio
from collections.abc import Callable

from loguru import logger

from chutes_core.base.errors import ChutesError, NotFound
from chutes_core.miner.discovery import Validator
from chutes_core.miner.reasons import MINER_FAILED, MINER_LOST
from chutes_core.miner.store import LaunchRecord
from chutes_core.miner.validator_api import ValidatorApi
from chutes_core.wire.control import LaunchEvent

_LISTENING_TRIES = 5
_RETRY_S = 1.0
_DETAIL_CHARS = 800
_PASSING = frozenset({"peer_unreachable", "peer_timeout"})


class Reports:
    """Sends reports; ``lookup`` finds a checked validator by hotkey."""

    def __init__(self, api: ValidatorApi, lookup: Callable[[str], Validator | None]) -> None:
        self._api = api
        self._lookup = lookup

    async def listening(self, validator: Validator, launch_id: str, public_key: str) -> None:
        """Report a new instance, with a few tries for a validator that is restarting.

        Raises:
            ChutesError: it is not heard.
        """
        event = LaunchEvent(event="listening", instance_public_key=public_key)
        for left in reversed(range(_LISTENING_TRIES)):
            try:
                await self._api.report(validator, launch_id, event)
                return
            except ChutesError as error:
                if left == 0 or error.code not in _PASSING:
                    raise
            await asyncio.sleep(_RETRY_S)

    async def listening_again(self, validator: Validator, record: LaunchRecord) -> None:
        """Report once more an instance that its validator has not heard of."""
        event = LaunchEvent(event="listening", instance_public_key=record.public_key)
        await self._once(validator, record.launch_id, event)

    async def leaving(self, record: LaunchRecord, reason: str) -> bool:
        """Ask that an instance gets no new calls and is stopped; True where that was heard."""
        validator = self._lookup(record.validator_hotkey)
        if validator is None:
            return False
        event = LaunchEvent(event="draining", reason=reason)
        return await self._once(validator, record.launch_id, event)

    async def lost(self, validator: Validator, launch_id: str) -> None:
        """Free a launch that the validator holds open and this miner knows nothing of."""
        event = LaunchEvent(event="gone", reason=MINER_LOST, detail="the miner lost this launch")
        await self._once(validator, launch_id, event)

    async def failed(self, validator: Validator, launch_id: str, detail: str) -> None:
        """Free a launch that was granted and is not in the store."""
        event = LaunchEvent(event="gone", reason=MINER_FAILED, detail=detail[:_DETAIL_CHARS])
        await self._once(validator, launch_id, event)

    async def gone(self, record: LaunchRecord) -> bool:
        """Report an end; True once its validator has heard it, or has forgotten the launch."""
        validator = self._lookup(record.validator_hotkey)
        if validator is None:
            return False
        event = LaunchEvent(event="gone", reason=record.end_reason, detail=record.end_detail)
        try:
            await self._api.report(validator, record.launch_id, event)
        except NotFound:
            return True  # nothing is left to tell
        except ChutesError as error:
            logger.bind(launch_id=record.launch_id, code=error.code).warning(
                "end of a launch was not heard; it will be told again"
            )
            return False
        return True

    async def _once(self, validator: Validator, launch_id: str, event: LaunchEvent) -> bool:
        log = logger.bind(launch_id=launch_id, reason=event.reason, validator=validator.hotkey)
        try:
            await self._api.report(validator, launch_id, event)
        except ChutesError as error:
            log.bind(code=error.code).warning("{} could not be reported", event.event)
            return False
        log.info("{} was reported", event.event)
        return True
