"""Idle GPUs in rounds: called up, challenged at the same instant, and no way to stay away."""

import asyncio
from types import SimpleNamespace

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.gpus import Admission
from chutes_core.validator.domain.launches import ClaimedGpu, Launch, LaunchState, Reason
from chutes_core.validator.domain.verdicts import GpuVerdict, Proof
from chutes_core.validator.launches.admissions import AdmissionLimits, Admissions
from chutes_core.validator.launches.musters import Muster
from chutes_core.validator.launches.rounds import LEAST_US, Rounds
from chutes_core.validator.store.database import Store
from chutes_core.wire.system import ADMISSION_CHUTE_ID

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

    async def attest_together(self, plans, *, passed=None):
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


def take_up(house, *states, uuids=("GPU-1",), launch_id="l1", chute_id="c"):
    """A launch on GPUs, moved on through some states."""
    house.store.launches.insert(
        Launch(
            launch_id=launch_id,
            chute_id=chute_id,
            version="1",
            image_id="i",
            miner_hotkey="5A",
            miner_coldkey="5Cold",
            registered_at_block=1,
            node_id="node",
            gpu_uuids=uuids,
            gpu_class="h100_sxm",
            relay_host="127.0.0.1",
            relay_port=1,
            profile="periodic",
            stand_in=True,
            requested_at_s=0,
            deadline_s=1,
            challenged=tuple(
                ClaimedGpu(uuid, at, "h100_sxm", True) for at, uuid in enumerate(uuids)
            ),
        ),
        b"key",
        b"ticket",
    )
    before = LaunchState.REQUESTED
    for state in states:
        proof = {"proof_id": "p"} if state is LaunchState.VERIFIED else {}
        house.store.launches.advance(launch_id, before, state, **proof)
        before = state


def end(house, launch_id="l1", reason=Reason.MINER_ENDED):
    state = house.store.launches.get(launch_id).state
    house.store.launches.advance(launch_id, state, LaunchState.GONE, reason=reason)


def answer(house, launch_id, *, reason=Reason.NONE, commitment="c"):
    """The launch's proof is judged."""
    launch = house.store.launches.get(launch_id)
    verdicts = tuple(
        GpuVerdict(uuid, "h100_sxm", reason is Reason.NONE, reason, 1, 2, 3, 4)
        for uuid in launch.gpu_uuids
    )
    at_s = house.clock.now_s()
    proof = Proof(
        "p", launch_id, "5A", "periodic", "node", True, at_s, 7, verdicts, commitment, "s"
    )
    house.admissions.judged(launch, proof)


async def come(house, *uuids):
    """The miner: sees that GPUs are called, and launches the system chute on them."""
    while house.admitted() & set(uuids):  # noqa: ASYNC110 # a miner polls
        await asyncio.sleep(0.001)
    states = (LaunchState.LISTENING, LaunchState.CHALLENGED)
    take_up(house, *states, uuids=uuids, launch_id="node", chute_id=ADMISSION_CHUTE_ID)
    outcome = await house.muster.attest(node_plan("node", *uuids))
    if outcome == "unreachable":
        answer(house, "node", reason=Reason.UNREACHABLE, commitment="")
        end(house, "node", Reason.UNREACHABLE)
    else:
        answer(house, "node")
        end(house, "node", Reason.ATTESTED)
    return outcome


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


async def round_in_which(house, act):
    """A round that calls GPU-1, during which something happens, and to which nobody comes."""
    house.admit("GPU-1")
    house.rounds._muster_s = 60
    round_ = asyncio.create_task(house.rounds.on_block("ab"))
    while "GPU-1" in house.admitted():  # noqa: ASYNC110 # called: the wanted list takes it away
        await asyncio.sleep(0.001)
    act()
    house.muster.missing = dict  # as if the time for coming were over
    house.muster._came.set()
    await round_


PROVEN = (LaunchState.LISTENING, LaunchState.CHALLENGED, LaunchState.VERIFIED)


async def test_a_gpu_that_proves_a_launch_meanwhile_loses_nothing(house):
    """It did not come because it serves, and its launch has challenged it."""
    await round_in_which(house, lambda: take_up(house, *PROVEN))
    assert house.admitted() == {"GPU-1"}
    end(house)
    assert house.admitted() == {"GPU-1"}


@pytest.mark.parametrize(
    "states", [(), (LaunchState.LISTENING,), (LaunchState.LISTENING, LaunchState.CHALLENGED)]
)
async def test_a_launch_that_proves_nothing_excuses_from_a_round_only_while_it_lasts(house, states):
    """Requested, listening or challenged: when it ends so, the round was missed."""
    await round_in_which(house, lambda: take_up(house, *states))
    assert house.admitted() == {"GPU-1"}
    house.rounds, house.admissions = None, None  # the excuse is in the store: a restart keeps it
    again = House(house.store)
    assert again.admitted() == {"GPU-1"}
    end(house)
    assert again.admitted() == set()


async def test_a_launch_that_this_validator_ended_itself_counts_against_nobody(house):
    """It restarted before the proof."""
    await round_in_which(house, lambda: take_up(house))
    end(house, reason=Reason.VALIDATOR_RESTARTED)
    assert house.admitted() == {"GPU-1"}


async def test_a_called_gpu_takes_up_no_chute_until_its_round_has_ended(house):
    """So nobody serves in order to be challenged alone, after the others."""
    seen = []

    def ask():
        with pytest.raises(Conflict) as refused:
            house.admissions.check_called("5A", ["GPU-1"])
        seen.append(refused.value.code)
        house.admissions.check_called("5A", ["GPU-2"])

    await round_in_which(house, ask)
    assert seen == ["not_admitted"]
    house.admissions.check_called("5A", ["GPU-1"])


async def test_a_gpu_that_comes_and_then_answers_nothing_has_missed_the_round(house):
    """Its launch waits for the round, and the relay is shut when the challenge comes."""
    house.admit("GPU-1")
    house.rounds._muster_s = 60

    async def unreachable(launches, *, least_us, beside):
        return tuple("unreachable" for _ in beside)

    house.challenge = unreachable
    miner = asyncio.create_task(come(house, "GPU-1"))
    assert await house.rounds.on_block("ab") == 1
    assert await miner == "unreachable"
    assert house.admitted() == set()


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
