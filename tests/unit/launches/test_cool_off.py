"""Launches that never listen: the next try of that miner and chute waits as long as they held."""

from contextlib import suppress
from dataclasses import replace

import pytest

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.launches import LaunchState, Reason
from chutes_core.validator.launches.cooloff import (
    LOOK_BACK_S,
    MAX_COOL_OFF_S,
    check_cool_off,
    cool_off_until_s,
)
from chutes_core.validator.store.database import Store
from tests.unit.launches.test_lights import launch

HELD_S = 600


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "v.sqlite")
    yield made
    made.close()


def ended(store, number, *, at_s, reason=Reason.LISTEN_DEADLINE, key="", chute="c", miner="5A"):
    """A launch that was asked for at a time and ended ten minutes later."""
    one = replace(
        launch(number, chute),
        state=LaunchState.REQUESTED,
        requested_at_s=at_s,
        miner_hotkey=miner,
        gpu_uuids=(f"GPU-{number}",),
    )
    store.launches.insert(one, b"key", b"ticket")
    state = LaunchState.REQUESTED
    if key:
        state = LaunchState.LISTENING
        store.launches.advance(one.launch_id, LaunchState.REQUESTED, state, instance_public_key=key)
    store.launches.advance(
        one.launch_id, state, LaunchState.GONE, reason=reason, gone_at_s=at_s + HELD_S
    )


def cools_until(store, now_s, chute="c", miner="5A"):
    with suppress(Conflict):
        check_cool_off(store.launches, miner, chute, now_s)
        return 0
    with pytest.raises(Conflict, match="never listened, until") as refused:
        check_cool_off(store.launches, miner, chute, now_s)
    assert refused.value.code == "cooling_off"
    return int(refused.value.message.rsplit(" ", 1)[1])


def test_who_held_a_place_in_vain_waits_as_long_and_then_twice_as_long(store):
    """It follows from the launches alone, a restart forgets nothing; others are free."""
    ended(store, 1, at_s=1_000)
    assert cools_until(store, 1_600) == 1_600 + HELD_S
    assert cools_until(store, 1_600, chute="d") == cools_until(store, 1_600, miner="5B") == 0
    assert cools_until(store, 1_600 + HELD_S) == 0
    ended(store, 2, at_s=2_200)
    assert cools_until(store, 2_800) == 2_800 + 2 * HELD_S
    ended(store, 3, at_s=4_000)
    assert cools_until(store, 4_600) == 4_600 + 4 * HELD_S


def test_a_launch_that_listened_ends_the_series(store):
    """Whatever became of it later."""
    ended(store, 1, at_s=1_000)
    ended(store, 2, at_s=3_000, key="ab", reason=Reason.PROOF_LATE)
    assert cools_until(store, 3_600) == 0
    ended(store, 3, at_s=4_000)
    assert cools_until(store, 4_600) == 4_600 + HELD_S


@pytest.mark.parametrize("reason", [Reason.VALIDATOR_RESTARTED, Reason.CHUTE_DELETED])
def test_what_the_miner_has_no_part_in_costs_it_nothing(store, reason):
    """The validator restarted, or the developer deleted the chute."""
    ended(store, 1, at_s=1_000, reason=reason)
    assert cools_until(store, 1_600) == 0


def test_to_end_it_oneself_is_no_way_out(store):
    """A miner that reports its launch gone before it listened waits the same."""
    ended(store, 1, at_s=1_000, reason=Reason.MINER_ENDED)
    assert cools_until(store, 1_600) == 1_600 + HELD_S


def test_the_wait_is_bounded_and_a_day_forgets(store):
    """Four hours at most; what is older than a day does not count."""
    for number in range(1, 12):
        ended(store, number, at_s=number)
    assert cools_until(store, 1_000) == 11 + HELD_S + MAX_COOL_OFF_S
    assert cools_until(store, 11 + HELD_S + LOOK_BACK_S + 1) == 0
    assert cool_off_until_s(()) == 0
