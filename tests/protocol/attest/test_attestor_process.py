"""The attestor's helper process: who has passed is told while others are still challenged."""

import asyncio
import threading

from chutes_core.validator.attest.attestor import ProcessAttestor
from tests.protocol.attest.instances import Instance, started

WAIT_S = 120


async def test_who_has_passed_is_told_before_the_others_have_ended():
    """One instance answers only once the other's pass was heard here, over a real process."""
    heard = threading.Event()

    class Waits(Instance):
        def answer(self, index, leg, body):
            assert heard.wait(WAIT_S)
            return super().answer(index, leg, body)

    pairs = [started(Waits), started(Instance)]
    attestor, places = ProcessAttestor(1), []

    def passed(place):
        places.append(place)
        heard.set()

    try:
        plans = [plan for plan, _ in pairs]
        outcomes = await asyncio.wait_for(attestor.attest_together(plans, passed=passed), WAIT_S)
    finally:
        heard.set()
        attestor.close()
        for _, instance in pairs:
            instance.close()
    assert places[0] == 1
    assert outcomes[1].passed
    assert [place for place in (0, 1) if outcomes[place].passed] == sorted(places)
