"""Light challenges: what a wrong, a late and an evasive instance gets; nobody else pays."""

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Unavailable
from chutes_core.validator.domain.launches import Launch, LaunchState, Reason
from chutes_core.validator.domain.verdicts import Attestation, GpuVerdict, Prebuilt, Proof
from chutes_core.validator.launches.drains import DRAIN_S, Drains
from chutes_core.validator.launches.lights import AT_ONCE, RETRY_S, Lights
from chutes_core.validator.launches.pauses import Pauses
from chutes_core.validator.store.database import Store

INTERVAL_S = 1200
LONGEST_CALL_S = 600
PREBUILT = Prebuilt(("device",), 1, "answers")


def launch(number, chute="c"):
    return Launch(
        launch_id=f"{number:04x}",
        chute_id=chute,
        version="1",
        image_id="i",
        miner_hotkey="5A",
        miner_coldkey="5Cold",
        registered_at_block=1,
        node_id="node",
        gpu_uuids=(f"GPU-{number}",),
        gpu_class="h100_sxm",
        relay_host="127.0.0.1",
        relay_port=1,
        profile="periodic",
        stand_in=True,
        requested_at_s=0,
        deadline_s=1,
        state=LaunchState.ACTIVE,
    )


def outcome(reason=Reason.NONE):
    verdict = GpuVerdict("GPU", "h100_sxm", reason is Reason.NONE, reason, 1, 2, 3, 4)
    proof = Proof("p", "l", "5A", "light", "light", True, 1, 7, (verdict,), "c", "s")
    return Attestation(proof, reason, "", devices=("device",))


class House:
    """Lights over a real store; instances, provers and time are the test's."""

    def __init__(self, store, clock):
        self.store, self.clock = store, clock
        self.pauses = Pauses()
        self.calls = Counter()  # in flight, by launch
        self.answers = {}  # launch id -> reason, or an exception
        self.challenged = []  # (launch id, prebuilt, least_us)
        self.at_once, self.most_at_once = Counter(), Counter()
        self.recorded, self.ended, self.slept_s = [], {}, 0.0
        self.on_sleep = lambda: None
        self.nap = asyncio.sleep
        self.lights = Lights(
            store=store,
            attestor=self,
            plans=self,
            lifecycle=self,
            pauses=self.pauses,
            drains=Drains(
                in_flight=lambda launch_id: self.calls[launch_id],
                clock=clock,
                longest_call_s=LONGEST_CALL_S,
                sleep=self.sleep,
            ),
            changed=lambda: self.changed(),
            clock=clock,
            interval_s=INTERVAL_S,
        )

    def add(self, *launches):
        for one in launches:
            self.store.launches.insert(one, b"key", b"ticket")

    async def sleep(self, seconds):
        self.slept_s += seconds
        self.on_sleep()
        await self.nap(0)

    async def changed(self):
        pass

    def again(self, one, *, prebuilt=None, least_us=0):
        """Plan, as `Plans`."""
        return SimpleNamespace(launch_id=one.launch_id, prebuilt=prebuilt, least_us=least_us)

    async def attest_together(self, plans, *, passed=None):
        for plan in plans:
            assert plan.launch_id in self.pauses
            assert not self.calls[plan.launch_id]
            self.challenged.append((plan.launch_id, plan.prebuilt, plan.least_us))
            self.at_once[plan.launch_id] += 1
        self.most_at_once |= self.at_once
        for _ in range(3):
            await asyncio.sleep(0)
        for plan in plans:
            self.at_once[plan.launch_id] -= 1
        answers = [self.answers.get(plan.launch_id, Reason.NONE) for plan in plans]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return tuple(map(outcome, answers))

    async def prebuild(self, plan, devices, rtt_us):
        assert (devices, rtt_us) == (("device",), 7)
        return PREBUILT

    def record(self, one, attestation):
        self.recorded.append((one.launch_id, attestation.reason))

    def address(self, one):
        raise Unavailable("gone", "it does not speak any more")

    async def end(self, launch_id, reason, detail=""):
        """End a launch, as `Lifecycle`."""
        self.ended[launch_id] = reason
        now = self.store.launches.get(launch_id)
        self.store.launches.advance(launch_id, now.state, LaunchState.GONE, reason=reason)

    async def tick(self, seconds=INTERVAL_S):
        self.clock.advance(seconds)
        return await self.lights.run_once()


@pytest.fixture
def house(tmp_path, monkeypatch):
    store = Store(tmp_path / "v.sqlite")
    made = House(store, ManualClock())
    monkeypatch.setattr(
        "chutes_core.validator.launches.lights.replace",
        lambda plan, **changes: SimpleNamespace(**{**vars(plan), **changes}),
    )
    yield made
    store.close()


async def test_an_instance_is_challenged_again_and_again_each_time_with_what_was_built_ahead(house):
    """Paused meanwhile, back afterwards; a prebuilt challenge is used once."""
    house.add(launch(1))
    assert await house.tick(0) == 0
    assert await house.tick() == 1
    assert await house.tick() == 1
    assert [(one, built) for one, built, _ in house.challenged] == [
        ("0001", None),
        ("0001", PREBUILT),
    ]
    assert house.ended == {}
    assert "0001" not in house.pauses


async def test_a_wrong_answer_ends_the_launch_at_once(house):
    """The proof is recorded first, so that it counts against the GPU."""
    house.add(launch(1))
    house.answers["0001"] = Reason.PROOF_WRONG
    await house.tick(0)
    await house.tick()
    assert house.recorded == [("0001", Reason.PROOF_WRONG)]
    assert house.ended == {"0001": Reason.PROOF_WRONG}
    assert await house.tick() == 0


@pytest.mark.parametrize("reason", [Reason.PROOF_LATE, Reason.UNREACHABLE])
async def test_a_late_one_is_tried_twice_again_within_the_hour_and_then_ends(house, reason):
    """Each try after a minute; the third time within an hour is one too many."""
    house.add(launch(1))
    house.answers["0001"] = reason
    await house.tick(0)
    await house.tick()
    assert house.ended == {}
    assert await house.tick(RETRY_S - 1) == 0
    assert await house.tick(1) == 1
    assert house.ended == {}
    await house.tick(RETRY_S)
    assert house.ended == {"0001": reason}
    assert len(house.recorded) == 3


async def test_one_late_answer_an_hour_is_forgiven(house):
    """Tries are counted within an hour, and an accepted challenge clears them."""
    house.add(launch(1))
    await house.tick(0)
    for _ in range(5):
        house.answers["0001"] = Reason.PROOF_LATE
        await house.tick()
        house.answers["0001"] = Reason.NONE
        await house.tick(RETRY_S)
    assert house.ended == {}


async def test_what_breaks_in_a_challenge_leaves_nobody_paused_and_is_tried_again(house):
    """The loop's edge hears of it; the other instance was challenged all the same."""
    house.add(launch(1), launch(2, chute="d"))
    house.answers["0001"] = RuntimeError("broken")
    await house.tick(0)
    with pytest.raises(RuntimeError):
        await house.tick()
    assert ("0002", Reason.NONE) in house.recorded
    assert "0001" not in house.pauses
    house.answers["0001"] = Reason.NONE
    assert await house.tick(RETRY_S) == 1


async def test_who_has_passed_has_calls_again_while_others_are_still_challenged(house):
    """In a round nobody waits for the slowest; the snapshot is told of each."""
    house.add(launch(1), launch(2, chute="d"), launch(3, chute="e"))
    honest, seen, told = house.attest_together, [], []

    async def changed():
        told.append([one for one in ("0001", "0002", "0003") if one in house.pauses])

    async def attest_together(plans, *, passed=None):
        outcomes = await honest(plans)
        passed(1)
        seen.append([plan.launch_id in house.pauses for plan in plans])
        await asyncio.sleep(0)
        passed(0)
        passed(3)  # one that started beside the instances
        await asyncio.sleep(0)
        seen.append([plan.launch_id in house.pauses for plan in plans])
        return outcomes

    house.changed, house.attest_together = changed, attest_together
    beside = SimpleNamespace(launch_id="node", prebuilt=None, least_us=1)
    with house.pauses.holding(["node"]):
        await house.lights.challenge(
            [launch(1), launch(2, chute="d"), launch(3, chute="e")], least_us=1, beside=[beside]
        )
    assert seen == [[True, False, True, True], [False, False, True, True]]
    assert told[0] == ["0001", "0002", "0003"]
    assert ["0001", "0003"] in told
    assert ["0003"] in told
    assert told[-1] == []
    assert [one for one, _ in house.recorded] == ["0001", "0002", "0003"]


async def test_a_consequence_that_fails_costs_no_other_instance_its_own(house, monkeypatch):
    """The first one's record cannot be written; the second's launch ends, the first is retried."""
    one, other = launch(1), launch(2, chute="d")
    house.add(one, other)
    house.answers["0002"] = Reason.PROOF_WRONG
    kept = house.record

    def record(launch, attestation):
        if launch.launch_id == "0001":
            raise Unavailable("store_unavailable", "the disk is full")
        kept(launch, attestation)

    monkeypatch.setattr(house, "record", record)
    beside = SimpleNamespace(launch_id="node", prebuilt=None, least_us=1)
    with house.pauses.holding(["node"]):
        others = await house.lights.challenge([one, other], least_us=1, beside=[beside])
    assert len(others) == 1
    assert house.ended == {"0002": Reason.PROOF_WRONG}
    monkeypatch.setattr(house, "record", kept)
    await house.tick(RETRY_S)
    assert house.recorded[-1] == ("0001", Reason.NONE)


async def test_a_stream_without_end_on_ones_own_instance_is_no_way_around_a_challenge(house):
    """Waited for two minutes twice, then for as long as a call can last, then it ends as late."""
    house.add(launch(1))
    house.calls["0001"] = 1
    await house.tick(0)
    await house.tick()
    await house.tick(RETRY_S)
    assert house.slept_s == pytest.approx(2 * DRAIN_S)
    assert house.ended == {}
    await house.tick(RETRY_S)
    assert house.slept_s == pytest.approx(3 * DRAIN_S + LONGEST_CALL_S)
    assert house.ended == {"0001": Reason.PROOF_LATE}
    assert house.challenged == []


async def test_an_honest_instance_with_long_streams_is_challenged_in_the_end(house):
    """Out of routing it gets no new call, and the longest ends within the wait."""
    house.add(launch(1))
    house.calls["0001"] = 1
    await house.tick(0)
    await house.tick()
    await house.tick(RETRY_S)

    def calls_end():
        if house.slept_s > 2 * DRAIN_S + LONGEST_CALL_S - 1:
            house.calls["0001"] = 0

    house.on_sleep = calls_end
    await house.tick(RETRY_S)
    assert house.recorded == [("0001", Reason.NONE)]
    assert house.ended == {}
    assert house.lights._drains.patience_s("0001") == DRAIN_S


async def test_one_that_does_not_drain_holds_up_no_other(house):
    """The other is challenged while the first is still waited for."""
    house.add(launch(1), launch(2, chute="d"))
    house.calls["0001"] = 1
    other_done = asyncio.Event()
    honest = house.changed

    async def changed():
        if house.recorded:
            other_done.set()
            house.calls["0001"] = 0
        await honest()

    async def nap(_):
        await asyncio.wait_for(other_done.wait(), 60)

    house.changed, house.nap = changed, nap
    await house.tick(0)
    assert await house.tick() == 2
    assert house.recorded == [("0002", Reason.NONE), ("0001", Reason.NONE)]


async def test_of_a_chute_one_instance_is_away_at_a_time(house):
    """Three that are due together are challenged one after the other."""
    house.add(launch(1), launch(2), launch(3))
    paused = []
    honest = house.attest_together

    async def attest_together(plans, *, passed=None):
        paused.append([one for one in ("0001", "0002", "0003") if one in house.pauses])
        return await honest(plans)

    house.attest_together = attest_together
    await house.tick(0)
    assert await house.tick() == 3
    assert sorted(paused) == [["0001"], ["0002"], ["0003"]]


async def test_an_instance_takes_one_proof_at_a_time(house):
    """A light challenge and a round that meet on one instance follow each other."""
    one = launch(1)
    house.add(one)
    await asyncio.gather(
        house.lights.challenge([one]), house.lights.challenge([one], least_us=500_000)
    )
    assert len(house.challenged) == 2
    assert house.most_at_once == {"0001": 1}


async def test_one_that_ended_while_it_was_waited_for_is_left_alone(house):
    """No verdict is given on a launch that is gone."""
    one = launch(1)
    house.add(one)
    house.calls["0001"] = 1

    def ends():
        if house.slept_s > 1 and house.calls["0001"]:
            house.calls["0001"] = 0
            house.store.launches.advance("0001", LaunchState.ACTIVE, LaunchState.GONE)

    house.on_sleep = ends
    await house.lights.challenge([one])
    assert house.challenged == []


async def test_in_a_round_nobody_is_waited_for_longer_than_two_minutes(house):
    """Others are out of routing meanwhile; who is not quiet is left out, and waited for alone."""
    house.add(launch(1), launch(2))
    house.calls["0001"] = 1
    for _ in range(3):
        house.slept_s = 0
        await house.lights.challenge([launch(1), launch(2)], least_us=1)
        assert house.slept_s == pytest.approx(DRAIN_S)
    assert {one for one, _, _ in house.challenged} == {"0002"}
    assert house.ended == {}
    assert house.lights._drains.patience_s("0001") == DRAIN_S + LONGEST_CALL_S


async def test_what_starts_beside_the_instances_starts_in_the_same_call(house):
    """The outcomes of those beside come back to the caller and touch no launch."""
    house.add(launch(1))
    beside = SimpleNamespace(launch_id="node", prebuilt=None, least_us=0)
    house.answers["node"] = Reason.PROOF_LATE
    with house.pauses.holding(["node"]):
        (other,) = await house.lights.challenge([launch(1)], least_us=5, beside=[beside])
    assert other.reason is Reason.PROOF_LATE
    assert [one for one, _, _ in house.challenged] == ["0001", "node"]
    assert house.recorded == [("0001", Reason.NONE)]


async def test_no_more_than_so_many_are_away_at_once(house):
    """Each of another chute, all due: eight at a time, and all in the end."""
    house.add(*(launch(number, chute=f"c{number}") for number in range(1, 21)))
    away = []
    honest = house.attest_together

    async def attest_together(plans, *, passed=None):
        away.append(len(house.pauses._held))
        return await honest(plans)

    house.attest_together = attest_together
    await house.tick(0)
    assert await house.tick() == 20
    assert max(away) <= AT_ONCE
