"""Which of the containers that wait have ended, as the engine's list tells."""

from chutes_core.engine.handover import Line
from chutes_core.engine.networks import Networks
from chutes_core.miner.runtime.docker_waiting import DockerPlaces


def places():
    return DockerPlaces(
        None, "miner", describe=None, environment=dict, networks=lambda: Networks(None, None)
    )


def test_one_that_came_after_the_list_was_asked_for_has_not_ended():
    """It cannot stand in that list, and would be given up for good."""
    made = places()
    made._lines["standby-1"] = ("1", Line(None))
    asked = made.waiting
    made._lines["standby-2"] = ("2", Line(None))
    made.seen(asked - {"of another"})
    assert [made.is_up(f"standby-{n}") for n in (1, 2)] == [False, True]
