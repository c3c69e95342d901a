"""Which instance a waiting run gets; what callers, new versions and challenges see of it."""

import pytest

from chutes_core.validator.autoscale.wanted import Load
from chutes_core.validator.domain.chutes import Cord
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.domain.jobs import JobState
from chutes_core.validator.domain.launches import LaunchState
from chutes_core.validator.launches.snapshot import build
from chutes_core.validator.launches.vault import Vault
from tests.unit.jobs.conftest import CHUTE_ID, CREDIT_RAO, SPEC

CORDS = (Cord("echo", "/echo", "POST", None, None, stream=False),)


def call_now(house):
    house.demand[CHUTE_ID] = ChuteDemand(house.clock.now_s(), 0, 0)


def test_a_chute_of_jobs_alone_wants_an_instance_for_each_run_that_waits(house):
    """None while nothing waits; no more at once than its most instances."""
    house.deploy(max_instances=2, updated_at_s=house.clock.now_s())
    assert house.wanted.listed(house.clock.now_s()) == []
    for _ in range(3):
        house.ask()
    (wanted,) = house.wanted.listed(house.clock.now_s())
    assert wanted.missing == 2
    house.activate(1)
    house.claims.sweep()
    (wanted,) = house.wanted.listed(house.clock.now_s())
    assert wanted.missing == 1


def test_callers_keep_their_instance_and_the_run_gets_another(house):
    """A hot chute wants one more; the run takes the one that has no call."""
    house.deploy(cords=CORDS)
    call_now(house)
    job, first = house.ask(), house.activate(1)
    assert house.claims.sweep() == 0
    (wanted,) = house.wanted.listed(house.clock.now_s())
    assert wanted.missing == 1
    second = house.activate(2)
    house.calls[second] = 1
    assert house.claims.sweep() == 1
    assert house.job(job.job_id).launch_id == first
    assert house.wanted.listed(house.clock.now_s()) == []


def test_an_instance_of_another_version_or_state_is_not_taken(house):
    """A run runs the code that is deployed when it begins."""
    house.deploy()
    house.ask()
    house.activate(1, version="older")
    house.activate(2, state=LaunchState.STARTING)
    house.activate(3, chute_id="other")
    assert house.claims.sweep() == 0


def test_two_runs_never_share_an_instance(house):
    """The older run comes first."""
    house.deploy()
    first, second = house.ask(), house.ask()
    launch_id = house.activate()
    assert (house.claims.sweep(), house.claims.sweep()) == (1, 0)
    states = {house.job(one.job_id).state for one in (first, second)}
    assert states == {JobState.STARTING, JobState.PENDING}
    assert house.store.jobs.claimed() == {launch_id}


def test_many_waiting_runs_of_a_chute_look_for_an_instance_once(house, monkeypatch):
    """What a round costs grows with chutes, not with the runs that anybody may ask for."""
    house.deploy()
    for _ in range(5):
        house.ask()
    looks, open_launches = [], house.store.launches.open
    monkeypatch.setattr(house.store.launches, "open", lambda: looks.append(1) or open_launches())
    assert house.claims.sweep() == 0
    assert len(looks) == 1
    house.activate()
    assert house.claims.sweep() == 1
    assert len(looks) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda house: house.clock.advance(3_600), "no_instance"),
        (lambda house: house.store.chutes.delete(CHUTE_ID, 5), "chute_deleted"),
        (lambda house: house.deploy(jobs=()), "job_undeclared"),
    ],
)
def test_a_run_that_cannot_begin_ends_and_costs_nothing(house, change, reason):
    """Its hold comes back."""
    house.deploy()
    job = house.ask()
    change(house)
    assert house.claims.sweep() == 1
    now = house.job(job.job_id)
    assert (now.state, now.reason) == (JobState.FAILED, reason)
    assert house.balance() == CREDIT_RAO


def test_no_caller_is_sent_to_an_instance_that_runs_a_job(house):
    """The gateway's picture has the others alone."""
    house.deploy(cords=CORDS)
    call_now(house)
    vault = Vault(b"m" * 32)
    for number in (1, 2):
        launch_id = house.activate(number)
        house.store.launches.set_root(launch_id, vault.seal(launch_id, "root", b"r" * 32))
    house.store.launches.secrets = lambda one: _Sealed(vault, one)
    house.ask()
    assert house.claims.sweep() == 1
    picture = build(house.store, vault, lambda one: house.rates.of(one.selector))
    (view,) = picture.instances[CHUTE_ID]
    assert view.launch_id not in house.store.jobs.claimed()


class _Sealed:
    def __init__(self, vault, launch_id):
        self.ticket = vault.seal(launch_id, "ticket", b"t" * 32)
        self.root = vault.seal(launch_id, "root", b"r" * 32)


def test_the_target_counts_callers_and_waiting_runs(house):
    """What the keeper scales down by is never zero while a run waits."""
    one = house.deploy(cords=CORDS)
    assert house.wanted.target_of(one, Load(), house.clock.now_s()) == 0
    house.ask()
    assert house.wanted.target_of(one, Load(), house.clock.now_s()) == 1
    assert house.wanted.for_callers(one, Load(), house.clock.now_s()) == 0
    assert SPEC.name == "train"


def test_callers_who_wait_raise_the_bounty_of_their_chute(house):
    """The list says for how long callers have waited; without any it names no bounty."""
    house.deploy(cords=CORDS)
    now_s = house.clock.now_s()
    house.demand[CHUTE_ID] = ChuteDemand(now_s, waiting=1, waiting_since_s=now_s - 10)
    assert [chute.bounty for chute in house.wanted.listed(now_s)] == [3]
    call_now(house)
    assert [chute.bounty for chute in house.wanted.listed(now_s)] == [0]
