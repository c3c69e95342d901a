"""What may be asked for: whose, how much, at what price."""

import pytest

from chutes_core.base.errors import (
    Exhausted,
    Invalid,
    NotFound,
    PaymentRequired,
    TooLarge,
)
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.jobs import JobSpec, JobState, StoredFile
from chutes_core.validator.jobs import service
from chutes_core.validator.jobs.service import LONGEST_JOB_S, JobAsked
from chutes_core.wire.job import MAX_ARGUMENTS_BYTES
from tests.unit.jobs.conftest import CREDIT_RAO


@pytest.fixture
def chute(house):
    return house.deploy()


def ask(house, chute, name="train", arguments=None, limit_s=None):
    asked = JobAsked(name, arguments or {}, limit_s)
    return house.jobs.start(house.who("ann"), chute, asked)


@pytest.mark.parametrize(
    ("asked", "error", "code"),
    [
        ({"name": "evil"}, NotFound, "no_such_job"),
        ({"limit_s": 29}, Invalid, "bad_timeout"),
        ({"limit_s": 601}, Invalid, "bad_timeout"),
        ({"arguments": {"output_dir": "/"}}, Invalid, "bad_job_data"),
        ({"arguments": {"x": float("nan")}}, Invalid, "bad_job_data"),
        ({"arguments": {"x": "\ud800"}}, Invalid, "bad_job_data"),
        ({"arguments": {"x": "y" * MAX_ARGUMENTS_BYTES}}, TooLarge, "job_data_too_large"),
    ],
)
def test_a_wish_that_breaks_a_rule_is_refused_and_holds_nothing(house, chute, asked, error, code):
    """Everything is checked before anything is stored."""
    with pytest.raises(error, match=code):
        ask(house, chute, **asked)
    assert house.balance() == CREDIT_RAO
    assert house.store.jobs.count_of("ann") == 0


def test_a_shorter_limit_holds_less(house, chute):
    """The hold is the price of the limit, rounded up."""
    whole, short = ask(house, chute), ask(house, chute, limit_s=60)
    assert (whole.limit_s, short.limit_s) == (600, 60)
    assert whole.rate.hold_rao == pytest.approx(10 * short.rate.hold_rao, abs=10)


def test_a_job_without_a_limit_has_a_days(house):
    """What may run longest holds most."""
    chute = house.deploy(jobs=(JobSpec("train"),))
    assert ask(house, chute).limit_s == LONGEST_JOB_S


def test_what_is_held_cannot_be_spent_twice(house, chute):
    """The next wish finds what is left, and says how to go on."""
    price = house.rates.for_seconds(chute.selector, 600).hold_rao
    house.credit("ann", 2 * price - 1 - CREDIT_RAO)
    ask(house, chute)
    assert house.balance() == price - 1
    with pytest.raises(PaymentRequired, match="insufficient_balance"):
        ask(house, chute)


def test_a_keys_budget_bounds_its_runs_and_gets_the_rest_back(house, chute):
    """What a cancelled run held counts no more."""
    price = house.rates.for_seconds(chute.selector, 600).hold_rao
    key = ApiKey("k", "ann", "k", "0" * 64, True, (), 1, budget_rao=price)
    house.store.keys.insert(key)
    job = house.ask("ann", key)
    with pytest.raises(PaymentRequired, match="key_budget_spent"):
        house.ask("ann", key)
    house.jobs.cancel(house.who("ann"), job.job_id)
    assert house.store.keys.get("k").spent_rao == 0
    house.ask("ann", key)


def test_too_many_open_runs_are_refused(house, chute, monkeypatch):
    """One that has ended makes room."""
    monkeypatch.setattr(service, "MAX_OPEN_JOBS", 2)
    first = ask(house, chute, limit_s=30)
    ask(house, chute, limit_s=30)
    with pytest.raises(Exhausted, match="too_many_jobs"):
        ask(house, chute, limit_s=30)
    house.jobs.cancel(house.who("ann"), first.job_id)
    ask(house, chute, limit_s=30)


@pytest.mark.parametrize("bound", ["MAX_KEPT_JOBS", "MAX_STORED_BYTES"])
def test_who_keeps_too_much_runs_nothing_until_some_is_deleted(house, chute, monkeypatch, bound):
    """Runs and their bytes are counted for each account."""
    monkeypatch.setattr(service, bound, 1)
    job = ask(house, chute, limit_s=30) if bound == "MAX_KEPT_JOBS" else stored(house, chute)
    with pytest.raises(Exhausted, match="job_storage_full"):
        ask(house, chute, limit_s=30)
    house.jobs.cancel(house.who("ann"), job.job_id)
    house.jobs.delete(house.who("ann"), job.job_id)
    ask(house, chute, limit_s=30)


def stored(house, chute):
    job = ask(house, chute, limit_s=30)
    kept = (StoredFile("a", 5, "0" * 64),)
    house.store.jobs.update(job.job_id, JobState.PENDING, files=kept)
    return job


def test_nobody_else_sees_a_run_not_even_the_chutes_owner(house):
    """Reading, cancelling, deleting and fetching say that there is no such run."""
    house.deploy(public=True)
    job = house.ask("bea")
    ann = house.who("ann")
    for act in (
        lambda: house.jobs.get(ann, job.job_id),
        lambda: house.jobs.cancel(ann, job.job_id),
        lambda: house.jobs.delete(ann, job.job_id),
        lambda: house.jobs.file(ann, job.job_id, "a"),
    ):
        with pytest.raises(NotFound, match="no_such_run"):
            act()
    assert house.jobs.list(ann) == (0, ())
    assert house.job(job.job_id).open
    assert house.balance("ann") == CREDIT_RAO
