"""A worker that cannot be started again for a moment does not end the others."""

from pathlib import Path

import pytest
from crewed import crewed

from chutes_core.validator.gateway.workers import crew as rooms

pytestmark = pytest.mark.timeout(400)


async def test_a_process_that_cannot_be_made_is_tried_again(tmp_path: Path, monkeypatch):
    """For want of memory or descriptors: nobody else is ended for it."""
    tries, spawn = [], rooms._spawn

    async def scarce(theirs):
        tries.append(1)
        if len(tries) <= 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await spawn(theirs)

    async with crewed(tmp_path) as house:
        before = house.crew.pids()
        monkeypatch.setattr(rooms, "_spawn", scarce)
        house.crew._kill("gateway-1")
        await house.until(lambda: house.crew.pids().keys() == before.keys() and len(tries) > 2)
        after = house.crew.pids()
        assert after["gateway-1"] != before["gateway-1"]
        assert after["gateway-2"] == before["gateway-2"]
