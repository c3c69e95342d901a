"""A run from the wish to its end: what it holds, costs, keeps, and what ends it."""

import asyncio
import threading
from dataclasses import replace

import pytest

from chutes_core.base.errors import Conflict, Unavailable
from chutes_core.validator.domain.accounts import FREE
from chutes_core.validator.domain.jobs import ENDS, JOB_REASONS, JobState, check_step
from chutes_core.validator.domain.launches import LaunchState, Reason
from chutes_core.validator.jobs import conductor as rooms
from chutes_core.validator.jobs.ending import FREE_LOSSES
from chutes_core.validator.jobs.money import job_account
from chutes_core.validator.launches.instance import InstanceRefused
from chutes_core.wire.job import JobFile, JobReport
from tests.unit.jobs.conftest import CREDIT_RAO, DAY_S

RUNS = JobReport(ran_ms=10)


def ended(status, reason="", **fields):
    return JobReport(ran_ms=2_500, status=status, reason=reason, **fields)


async def test_a_run_holds_its_price_runs_alone_and_costs_what_it_ran(house):
    """The rest of the hold comes back; its miner's record says what its user paid."""
    house.deploy()
    job = house.ask(steps=3)
    assert house.balance() == CREDIT_RAO - job.rate.hold_rao
    assert house.store.ledger.balance(job_account(job.job_id)) == job.rate.hold_rao
    launch_id = house.activate()
    polls = iter([RUNS, RUNS, RUNS])
    house.leaves({"loss": 1}, **{"a/model.bin": "abc", "log": "abc"})
    done = house.report
    house.report = lambda job_id: next(polls, done)
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason, now.result) == (JobState.COMPLETE, "", '{"loss": 1}')
    assert [(f.name, f.size_bytes) for f in now.files] == [("a/model.bin", 3), ("log", 3)]
    assert now.usage_us == 2_500_000
    assert now.charge_rao == job.rate.charge_rao(2_500_000) > 0
    assert house.balance() == CREDIT_RAO - now.charge_rao
    assert house.store.ledger.balance(job_account(job.job_id)) == 0
    assert house.drained == [(launch_id, "job_ended")]
    record = house.store.invocations.get(job.job_id)
    assert (record.launch_id, record.outcome, record.charged) == (launch_id, "ok", True)
    assert record.usage_us == now.usage_us
    (order,) = (order for _, order in house.orders)
    assert (order.arguments, order.limit_s, order.upload) == ('{"steps": 3}', 600, True)


@pytest.mark.parametrize("status", ["complete", "error", None])
async def test_the_ports_of_a_run_are_told_of_its_end(house, status):
    """Before its files are fetched, upon its own error, and where it was cancelled."""
    house.deploy()
    job = house.ask()
    house.activate()
    seen = []

    def report(job_id):
        seen.append(list(house.left))
        if status is None:
            house.jobs.cancel(house.who("ann"), job_id)
            return RUNS
        return ended(status, result="1" if status == "complete" else "")

    house.report = report
    await house.carry()
    assert seen == [[]]
    assert set(house.left) == {job.job_id}
    assert house.job(job.job_id).state in ENDS


@pytest.mark.parametrize(("said_ms", "paid_us"), [(0, 15_000_000), (10**12, 17_000_000)])
async def test_our_clock_bounds_what_an_instance_says_it_ran(house, said_ms, paid_us):
    """Neither less than we saw it run, nor more than has passed."""
    house.deploy()
    job = house.ask()
    house.activate()
    polls = iter([RUNS] * 17)
    done = ended("complete").model_copy(update={"ran_ms": said_ms})
    house.report = lambda job_id: next(polls, done)
    await house.carry()
    assert house.job(job.job_id).usage_us == paid_us


@pytest.mark.parametrize(
    ("report", "state", "reason"),
    [
        (ended("error", "job_failed", detail="ValueError: x"), JobState.ERROR, "job_failed"),
        (ended("timeout", "job_timeout"), JobState.TIMEOUT, "job_timeout"),
        (ended("cancelled", "job_cancelled"), JobState.CANCELLED, "job_cancelled"),
        (ended("complete", result="[1e999]"), JobState.ERROR, "bad_job_result"),
        (
            ended("complete", files=(JobFile(name="../../x", size_bytes=1),)),
            JobState.ERROR,
            "bad_file_name",
        ),
        (
            ended("complete", files=(JobFile(name="big", size_bytes=10**12),)),
            JobState.ERROR,
            "files_too_large",
        ),
    ],
)
async def test_an_end_that_is_not_complete_says_why_and_is_charged(house, report, state, reason):
    """The GPU ran for it; nothing of what it left is fetched, be it announced as a terabyte."""
    house.deploy()
    job = house.ask()
    house.activate()
    house.report = report
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason, now.files) == (state, reason, ())
    assert JOB_REASONS[reason]
    assert house.fetched == []
    assert house.drained[0][1] == "job_ended"


async def test_an_instance_that_gives_more_than_it_announced_is_cut_off(house):
    """What is kept of a run is bounded by what is received, not by what was said."""
    house.deploy()
    job = house.ask()
    house.activate()
    house.leaves(None, a="x" * 600, b="y" * 600)
    small = tuple(replace_size(file) for file in house.report.files)
    house.report = house.report.model_copy(update={"files": small})
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason) == (JobState.ERROR, "files_too_large")
    assert house.fetched == [("a", 1000), ("b", 400)]


def replace_size(file):
    return JobFile(name=file.name, size_bytes=1)


async def test_a_waiting_run_that_is_cancelled_twice_gives_its_hold_back_once(house):
    """The second time changes nothing."""
    house.deploy()
    job = house.ask()
    first = house.jobs.cancel(house.who("ann"), job.job_id)
    assert (first.state, first.reason) == (JobState.CANCELLED, "cancelled_by_user")
    assert house.jobs.cancel(house.who("ann"), job.job_id) == first
    assert house.balance() == CREDIT_RAO
    assert house.store.invocations.get(job.job_id) is None


async def test_a_running_run_that_is_cancelled_pays_for_what_it_ran(house):
    """Its instance is taken away; cancelling it twice is cancelling it once."""
    house.deploy()
    job = house.ask()
    launch_id = house.activate()
    house.report = RUNS

    async def sleep(seconds):
        house.clock.advance(5)
        house.jobs.cancel(house.who("ann"), job.job_id)
        house.jobs.cancel(house.who("ann"), job.job_id)

    house.conductor._sleep = sleep
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason, now.usage_us) == (
        JobState.CANCELLED,
        "cancelled_by_user",
        5_000_000,
    )
    assert house.balance() == CREDIT_RAO - now.charge_rao < CREDIT_RAO
    assert house.drained == [(launch_id, "job_ended")]


async def test_a_run_whose_instance_never_ends_it_ends_by_our_clock(house):
    """It costs its limit, which is its hold, and no more."""
    house.deploy()
    job = house.ask()
    house.activate()
    house.report = RUNS
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.charge_rao) == (JobState.TIMEOUT, job.rate.hold_rao)


async def test_an_instance_that_says_nothing_at_the_limit_is_paid_for_what_was_seen(house):
    """Neither our own absence nor a silent miner turns a minute into the whole limit."""
    house.deploy()
    job = house.ask()
    house.activate()
    house.report = RUNS
    await killed(house, "_ended", after_us=30_000_000)
    seen_us = house.job(job.job_id).seen_at_us - house.job(job.job_id).started_at_us
    house.clock.advance(7_200)
    house.fresh()
    house.down = Unavailable("connection_lost", "its lease has ended meanwhile")
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason) == (JobState.TIMEOUT, "job_timeout")
    assert 0 < now.usage_us == seen_us <= 30_000_000
    assert house.balance() == CREDIT_RAO - now.charge_rao


async def test_an_instance_that_takes_no_order_is_left(house):
    """Nothing ran, so nothing is charged."""
    house.deploy()
    job = house.ask()
    house.activate()
    house.down = Unavailable("connection_lost", "an old runner knows no such frame")
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason) == (JobState.FAILED, "instance_refused")
    assert house.balance() == CREDIT_RAO


async def test_an_instance_that_refuses_the_order_ends_the_run(house):
    """The refusal's words are the detail."""
    house.deploy()
    job = house.ask()
    house.activate()
    house.down = InstanceRefused("no_such_job", "the chute has no job train")
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason) == (JobState.FAILED, "instance_refused")
    assert "no_such_job" in now.detail


async def test_a_run_that_loses_its_instance_is_free_but_not_always(house):
    """User code could end its own instance to go without paying: three a day are free."""
    house.deploy()
    for number in range(FREE_LOSSES + 1):
        job = house.ask()
        launch_id = house.activate(number)
        house.report = RUNS

        async def sleep(seconds, launch_id=launch_id):
            house.clock.advance(6)
            if house.ticks:
                house.end_launch(launch_id, Reason.MINER_ENDED)
            house.ticks = 1 - house.ticks

        house.conductor._sleep = sleep
        await house.carry()
        now = house.job(job.job_id)
        assert (now.state, now.reason) == (JobState.FAILED, "instance_lost")
        assert (now.charge_rao > 0) == (number == FREE_LOSSES)
    house.clock.advance(DAY_S)
    assert house.store.jobs.lost_since("ann", house.clock.now_us() - DAY_S * 10**6) == 0


async def test_a_run_whose_chute_is_deleted_under_it_is_charged_as_cancelled(house):
    """The owner, who may be the one that runs it, decided so."""
    house.deploy()
    job = house.ask()
    launch_id = house.activate()
    house.report = RUNS

    async def sleep(seconds):
        house.clock.advance(5)
        house.end_launch(launch_id, Reason.CHUTE_DELETED)

    house.conductor._sleep = sleep
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason) == (JobState.CANCELLED, "chute_deleted")
    assert now.charge_rao > 0


async def test_an_account_with_free_calls_pays_for_its_jobs(house):
    """What is free is a number of calls a day; a job may be a day of a GPU."""
    house.add_user("val", 3, frozenset({FREE}))
    house.deploy(public=True)
    job = house.ask("val")
    house.activate()
    house.report = ended("complete")
    done, polls = house.report, iter([RUNS])
    house.report = lambda job_id: next(polls, done)
    await house.carry()
    assert house.balance("val") == CREDIT_RAO - house.job(job.job_id).charge_rao < CREDIT_RAO
    assert house.store.invocations.get(job.job_id).charged


async def test_a_killed_validator_goes_on_where_it_was(house):
    """At every state it is killed in; the order is given again and the money moves once."""
    house.deploy()
    job = house.ask()
    launch_id = house.activate()
    house.leaves({"x": 1}, a="abc")
    done, house.report = house.report, RUNS
    await killed(house, "_start")
    assert house.job(job.job_id).state is JobState.STARTING
    await killed(house, "_ended", after_us=30_000_000)
    assert house.job(job.job_id).state is JobState.RUNNING
    house.clock.advance(7_200)  # nobody watches for two hours
    house.report = done
    await killed(house, "_save")
    assert house.job(job.job_id).state is JobState.SAVING
    house.fresh()
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.launch_id) == (JobState.COMPLETE, launch_id)
    assert now.usage_us < 60_000_000  # our absence costs nobody anything
    assert house.balance() == CREDIT_RAO - now.charge_rao
    assert len({order for _, order in house.orders}) == 1


async def killed(house, step, after_us=0):
    """Run a fresh process until it would take ``step`` (or for so long), and kill it there."""
    house.fresh()
    reached = asyncio.Event()
    until_us = house.clock.now_us() + after_us

    async def stop(*args):
        reached.set()
        await asyncio.Event().wait()

    async def sleep(seconds):
        house.clock.advance(seconds)
        if after_us and house.clock.now_us() >= until_us:
            await stop()
        await asyncio.sleep(0)

    house.conductor._sleep = sleep
    setattr(house.conductor, step, stop)
    await house.conductor.run_once()
    await asyncio.wait_for(reached.wait(), 60)
    await house.conductor.close()


async def test_an_instance_of_an_ended_run_never_serves_anybody_else(house):
    """A validator that dies between a run's end and its instance's takes that away afterwards."""
    house.deploy()
    first = house.ask()
    launch_id = house.activate()
    house.leaves()
    await killed(house, "_let_go")
    assert house.job(first.job_id).state is JobState.COMPLETE
    house.fresh()
    second = house.ask()
    assert house.claims.sweep() == 0
    with pytest.raises(Conflict, match="job_open"):
        house.jobs.delete(house.who("ann"), first.job_id)
    assert launch_id in house.store.jobs.claimed()
    await house.carry()
    assert house.drained == [(launch_id, "job_ended")]
    assert house.job(second.job_id).state is JobState.PENDING
    house.jobs.delete(house.who("ann"), first.job_id)


async def test_files_that_do_not_come_are_given_up(house, monkeypatch):
    """An instance that stalls holds a run for an hour, not for ever."""
    house.deploy()
    job = house.ask()
    house.activate()
    house.leaves(None, a="abc")
    monkeypatch.setattr(rooms, "POLL_S", 60)

    def stalls(*args, **options):
        raise Unavailable("connection_lost", "it stalls")

    house.fetch = stalls
    monkeypatch.setattr(rooms.files, "fetch", stalls)
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason) == (JobState.FAILED, "files_lost")


async def test_files_that_trickle_are_given_up(house, monkeypatch):
    """Each comes, but the last one not within the hour; their thread is free for others again."""
    house.deploy()
    job = house.ask()
    house.activate()
    house.leaves(None, **{f"f{number}": "x" for number in range(10)})
    kept = house.fetch

    def trickles(*args, **options):
        house.clock.advance(1_000)
        return kept(*args, **options)

    monkeypatch.setattr(rooms.files, "fetch", trickles)
    await house.carry()
    now = house.job(job.job_id)
    assert (now.state, now.reason, len(house.fetched)) == (JobState.FAILED, "files_lost", 4)


async def test_so_many_files_are_fetched_at_once(house, monkeypatch):
    """On threads of their own: instances that stall keep no other work from its thread."""
    house.deploy(max_instances=20)
    arrived, go_on = threading.Semaphore(0), threading.Event()
    at_once = []

    def fetch(address, job_id, *args, **options):
        at_once.append(job_id)
        arrived.release()
        assert go_on.wait(60)
        raise Unavailable("connection_lost", "it stalls")

    monkeypatch.setattr(rooms.files, "fetch", fetch)
    for number in range(rooms.FETCHES + 2):
        house.ask()
        house.activate(number)
    house.leaves(None, a="abc")
    await house.conductor.run_once()
    for _ in range(rooms.FETCHES):
        assert await asyncio.to_thread(arrived.acquire, timeout=60)
    assert len(at_once) == rooms.FETCHES
    go_on.set()
    await house.conductor.close()


async def test_a_full_disk_is_no_fault_of_the_user(house, monkeypatch):
    """The run fails and is not charged, however often; nor does it count as a lost one."""
    house.deploy()
    monkeypatch.setattr(rooms.files, "MIN_FREE_BYTES", 2**62)
    for number in range(FREE_LOSSES + 1):
        job = house.ask()
        house.activate(number)
        house.leaves(None, a="abc")
        await house.carry()
        now = house.job(job.job_id)
        assert (now.state, now.reason, now.charge_rao) == (JobState.FAILED, "no_space", 0)
    assert house.store.jobs.lost_since("ann", 0) == 0


async def test_a_refused_order_is_no_lost_run(house):
    """What never began costs nothing, and takes no free loss from its user."""
    house.deploy()
    house.ask()
    house.activate()
    house.down = InstanceRefused("no_such_job", "the chute has no job train")
    await house.carry()
    assert house.store.jobs.lost_since("ann", 0) == 0


def test_an_ended_run_never_changes_again():
    """No end has a next state."""
    for end in ENDS:
        for state in JobState:
            with pytest.raises(Conflict, match="bad_transition"):
                check_step(end, state)


async def test_equal_files_of_two_runs_are_kept_until_both_are_deleted(house):
    """Bytes are shared, and nobody's deletion takes another's; what no run names is swept away."""
    house.deploy()
    jobs = []
    for number in range(2):
        jobs.append(house.ask())
        house.activate(number)
        house.leaves(None, a="abc")
        await house.carry()
    stray = house.store.job_files.put([b"stray"], limit_bytes=10)
    house.endings.resume()
    _, path = house.jobs.file(house.who("ann"), jobs[0].job_id, "a")
    assert stray.sha256 not in house.store.job_files.all()
    house.jobs.delete(house.who("ann"), jobs[0].job_id)
    assert path.read_bytes() == b"abc"
    house.clock.advance(DAY_S)
    assert house.endings.prune(DAY_S // 2) == 1
    assert not path.exists()


def test_a_record_of_every_field_comes_back(house):
    """The store forgets nothing of a run."""
    house.deploy()
    job = house.ask(steps=1)
    assert house.job(job.job_id) == job
    listed = house.store.jobs.page("ann", [job.chute_id], limit=10)
    assert listed == (1, (replace(job, arguments=""),))
    moved = house.store.jobs.advance(
        job.job_id, JobState.PENDING, JobState.STARTING, launch_id="l", claimed_at_us=5
    )
    assert moved == replace(job, state=JobState.STARTING, launch_id="l", claimed_at_us=5)
    assert house.store.launches.open() == ()
    assert LaunchState.ACTIVE not in house.store.jobs.claimed()
