"""Idle GPUs in rounds: called up, challenged at the same instant, and no way to stay away."""

import asyncio
from types import SimpleNamespace

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.validator.domain.gpus import Admission
from chutes_core.validator.domain.launches import ClaimedGpu, LaunchState
from chutes_core.validator.launches.admissions import AdmissionLimits, Admissions
from chutes_core.validator.launches.musters import Muster
from chutes_core.validator.launches.rounds import LEAST_US, Rounds
from chutes_core.validator.store.database import Store

DAY_S = 86_400


def node_plan(name, *uuids, hotkey="5A", scope="node"):
    gpus = tuple(ClaimedGpu(uuid, at, "h100_sxm", True) for at, uuid in enumerate(uuids))
    return SimpleNamespace(launch_id=name, miner_hotkey=hotkey, scope=scope, gpus=gpus)


class Attestor:
    """Answers with the names of the plans that were attested together."""

    def __init__(self):
        self.together = []

    async def attest(self, plan):
        self.together.append((plan.launch_id,))
        return f"{plan.launch_id} alone"

    async def attest_together(self, plans):
        self.together.append(tuple(plan.launch_id for plan in plans))
        return tuple(f"{plan.launch_id} together" for plan in plans)


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_only_what_was_called_waits_for_the_round():
    """Other GPUs, other miners and instances are attested at once."""
    muster = Muster(Attestor())
    round_ = asyncio.create_task(muster.assemble({"5A": frozenset({"GPU-1", "GPU-2"})}, 60))
    await settle()
    assert await muster.attest(node_plan("other", "GPU-9")) == "other alone"
    assert await muster.attest(node_plan("theirs", "GPU-1", hotkey="5B")) == "theirs alone"
    assert await muster.attest(node_plan("instance", "GPU-1", scope="instance"))
    waiting = [
        asyncio.create_task(muster.attest(node_plan(f"n{at}", f"GPU-{at}"))) for at in (1, 2)
    ]
    plans = await round_
    assert [plan.launch_id for plan in plans] == ["n1", "n2"]
    assert muster.missing() == {}
    muster.conclude(plans, await muster.attest_together(plans))
    assert await asyncio.gather(*waiting) == ["n1 together", "n2 together"]


async def test_a_round_begins_without_those_that_do_not_come():
    """Their time is over; who came late is attested alone once the round has ended."""
    muster = Muster(Attestor())
    plans = await muster.assemble({"5A": frozenset({"GPU-1"})}, 0.01)
    assert plans == ()
    assert muster.missing() == {"5A": frozenset({"GPU-1"})}
    late = asyncio.create_task(muster.attest(node_plan("late", "GPU-1")))
    await settle()
    assert not late.done()
    muster.dismiss()
    assert await late == "late alone"
    assert muster.called("5A") == frozenset()


class House:
    """Rounds over a real store; the instances' challenges are recorded."""

    def __init__(self, store):
        self.store, self.clock = store, ManualClock()
        self.attestor = Attestor()
        self.muster = Muster(self.attestor)
        self.unleased = set()
        self.challenges = []
        self.admissions = Admissions(
            store=store,
            clock=self.clock,
            limits=AdmissionLimits("admission", "periodic", DAY_S, DAY_S),
            known=dict,
            called_up=self.muster.called,
        )
        self.rounds = Rounds(
            store=store,
            lights=self,
            muster=self.muster,
            admissions=self.admissions,
            leased=lambda _, uuid: uuid not in self.unleased,
            self_hotkey="5V",
            one_in=1,
            muster_s=0.05,
        )

    async def challenge(self, launches, *, least_us, beside):
        """Challenge, as `Lights`."""
        self.challenges.append(([one.launch_id for one in launches], least_us))
        return await self.attestor.attest_together(beside)

    def admit(self, uuid, hotkey="5A"):
        now_s = self.clock.now_s()
        self.store.gpus.admit(
            Admission(hotkey, uuid, "h100_sxm", "h100_sxm", "p", "admission", now_s, now_s)
        )

    def admitted(self, hotkey="5A"):
        return set(self.admissions.listed(hotkey).admitted)


@pytest.fixture
def house(tmp_path):
    store = Store(tmp_path / "v.sqlite")
    yield House(store)
    store.close()


async def come(house, *uuids):
    """The miner: sees that GPUs are called, and launches the system chute on them."""
    while house.admitted() & set(uuids):  # noqa: ASYNC110 # a miner polls
        await asyncio.sleep(0.001)
    return await house.muster.attest(node_plan("node", *uuids))


async def test_a_miners_idle_gpus_are_challenged_with_its_instances_at_one_instant(
    house, monkeypatch
):
    """The wanted list calls them, their launch waits, and all start in one call."""
    instance = SimpleNamespace(launch_id="i1", miner_hotkey="5A", state=LaunchState.ACTIVE)
    monkeypatch.setattr(house.rounds, "_active", lambda: [instance])
    for uuid in ("GPU-1", "GPU-2"):
        house.admit(uuid)
    house.rounds._muster_s = 60
    miner = asyncio.create_task(come(house, "GPU-1", "GPU-2"))
    assert await house.rounds.on_block("ab") == 2
    assert await miner == "node together"
    assert house.challenges == [(["i1"], LEAST_US)]
    assert house.admitted() == {"GPU-1", "GPU-2"}


async def test_an_idle_gpu_that_does_not_come_must_be_admitted_anew(house):
    """Staying away, also with a silent inventory, is no way around a round."""
    house.admit("GPU-1")
    house.admit("GPU-2", hotkey="5B")
    await house.rounds.on_block("ab")
    assert house.admitted() == house.admitted("5B") == set()


async def test_what_is_not_idle_here_is_not_called(house, monkeypatch):
    """A GPU that is leased to another validator, or serves, or is admitted nowhere."""
    for uuid in ("GPU-1", "GPU-2"):
        house.admit(uuid)
    house.unleased = {"GPU-1"}
    monkeypatch.setattr(house.store.launches, "busy_gpus", lambda _: {"GPU-2": "launch"})
    assert await house.rounds.on_block("ab") == 0
    assert house.admitted() == {"GPU-1", "GPU-2"}


async def test_a_gpu_that_took_up_a_launch_meanwhile_loses_nothing(house, monkeypatch):
    """It did not come because it serves, and its launch has challenged it."""
    house.admit("GPU-1")
    busy = iter([{}, {"GPU-1": "launch"}])
    monkeypatch.setattr(house.store.launches, "busy_gpus", lambda _: next(busy))
    await house.rounds.on_block("ab")
    assert house.admitted() == {"GPU-1"}


async def test_a_round_that_breaks_leaves_nobody_waiting_or_called(house):
    """Who came is attested alone, and the wanted list shows the GPUs as admitted again."""
    house.admit("GPU-1")
    house.rounds._muster_s = 60

    async def broken(launches, *, least_us, beside):
        raise RuntimeError("broken")

    house.challenge = broken
    miner = asyncio.create_task(come(house, "GPU-1"))
    with pytest.raises(RuntimeError):
        await house.rounds.on_block("ab")
    assert await miner == "node alone"
    assert house.admitted() == {"GPU-1"}


async def test_the_same_block_is_looked_at_once(house):
    """And none where rounds are switched off."""
    house.admit("GPU-1")
    await house.rounds.on_block("ab")
    assert await house.rounds.on_block("ab") == 0
    house.rounds._one_in = 0
    assert await house.rounds.on_block("cd") == 0
