"""A worker that cannot be started again for a moment does not end the others."""

from pathlib import Path

import pytest
from crewed import crewed

from chutes_core.validator.gateway.workers.process import spawn

pytestmark = pytest.mark.timeout(400)


async def test_a_process_that_cannot_be_made_is_tried_again(tmp_path: Path):
    """For want of memory or descriptors: nobody else is ended for it."""
    tries, failing = 0, 0

    async def scarce(theirs):
        nonlocal tries, failing
        if failing:
            tries, failing = tries + 1, failing - 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await spawn(theirs)

    async with crewed(tmp_path, start=scarce) as house:
        before = house.crew.pids()
        failing = 2
        house.crew._kill("gateway-1")
        await house.until(lambda: house.crew.pids().keys() == before.keys() and tries == 2)
        after = house.crew.pids()
        assert after["gateway-1"] != before["gateway-1"]
        assert after["gateway-2"] == before["gateway-2"]
