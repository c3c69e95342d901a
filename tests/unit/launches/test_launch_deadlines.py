"""How long a launch may take to listen, to start and to drain; what its end says."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import TimedOut
from chutes_core.validator.domain.launches import LaunchState, Reason
from chutes_core.validator.domain.verdicts import Attestation, GpuVerdict, Proof
from chutes_core.validator.launches import instance
from chutes_core.validator.launches.keeper import DRAIN_GRACE_S, Keeper
from chutes_core.validator.launches.lifecycle import Lifecycle
from chutes_core.validator.launches.ports import Miner
from chutes_core.validator.launches.service import LaunchLimits
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.store.database import Store
from tests.unit.launches.test_autoscale_target import chute
from tests.unit.launches.test_lights import launch

LIMITS = LaunchLimits(profile="test")
LAUNCH_ID, CHUTE_ID, VERSION = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
CHUTE = chute(chute_id=CHUTE_ID, version=VERSION)


class Chain:
    devnet, block = True, 1

    def miner(self, hotkey):
        return Miner(hotkey, "cold", 1, "127.0.0.1")


class Attests:
    """Attestor and plans of a launch whose GPU passes."""

    def first(self, one):
        return one

    async def attest(self, one):
        verdict = GpuVerdict("GPU", "h100_sxm", True, Reason.NONE, 1, 2, 3, 4)
        proof = Proof("p", one.launch_id, "5A", "test", "node", True, 1, 7, (verdict,), "c", "s")
        return Attestation(proof, Reason.NONE, "", root=b"r" * 32)

    def judged(self, one, proof):
        pass


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Keeper and lifecycle over a real store; the instance and the time are the test's."""
    store, clock, vault = Store(tmp_path / "v.sqlite"), ManualClock(), Vault(b"m" * 32)
    attests = Attests()
    monkeypatch.setattr(store.chutes, "get", lambda chute_id: CHUTE)

    async def changed():
        pass

    lifecycle = Lifecycle(
        store=store,
        attestor=attests,
        plans=attests,
        admissions=attests,
        vault=vault,
        clock=clock,
        limits=LIMITS,
        secrets_of=lambda chute: {},
        changed=changed,
    )
    keeper = Keeper(
        store=store,
        chain=Chain(),
        leases=None,
        wanted=None,
        lifecycle=lifecycle,
        clock=clock,
        limits=LIMITS,
        changed=changed,
    )

    def add(state):
        one = replace(launch(1), launch_id=LAUNCH_ID, chute_id=CHUTE_ID, version=VERSION)
        ticket = vault.seal(one.launch_id, "ticket", b"t" * 32)
        deadline_s = clock.now_s() + LIMITS.listen_deadline_s
        store.launches.insert(replace(one, state=state, deadline_s=deadline_s), b"key", ticket)
        store.launches.set_root(one.launch_id, vault.seal(one.launch_id, "root", b"r" * 32))
        return one.launch_id

    yield SimpleNamespace(store=store, clock=clock, lifecycle=lifecycle, keeper=keeper, add=add)
    store.close()


async def test_an_instance_that_does_not_listen_in_time_is_gone(house):
    """At its deadline, not before; the reason says what to look at."""
    launch_id = house.add(LaunchState.REQUESTED)
    house.clock.advance(LIMITS.listen_deadline_s - 1)
    await house.keeper.sweep()
    assert house.store.launches.get(launch_id).state is LaunchState.REQUESTED
    house.clock.advance(1)
    await house.keeper.sweep()
    gone = house.store.launches.get(launch_id)
    assert (gone.state, gone.reason) == (LaunchState.GONE, Reason.LISTEN_DEADLINE)


async def test_a_chute_that_does_not_start_in_time_is_gone(house, monkeypatch):
    """The instance is awaited for the whole of its time and no longer."""
    waited = []

    async def probe(address):
        assert address.root == b"r" * 32

    async def start(address, order, *, timeout_s):
        waited.append(timeout_s)
        raise TimedOut("frame_timeout", "the instance said nothing")

    monkeypatch.setattr(instance, "probe", probe)
    monkeypatch.setattr(instance, "start", start)
    launch_id = house.add(LaunchState.LISTENING)
    house.lifecycle.begin(launch_id)
    (task,) = house.lifecycle._tasks.values()
    await task
    gone = house.store.launches.get(launch_id)
    assert (gone.state, gone.reason) == (LaunchState.GONE, Reason.START_DEADLINE)
    assert waited == [LIMITS.start_deadline_s]


async def test_an_instance_that_drains_is_stopped_with_its_grace(house, monkeypatch):
    """It is told how long its calls may still run, and then it is gone, whatever it answers."""
    told = []

    async def stop(address, *, reason, grace_s):
        told.append((reason, grace_s))
        raise TimedOut("frame_timeout", "the instance said nothing")

    monkeypatch.setattr(instance, "stop", stop)
    launch_id = house.add(LaunchState.ACTIVE)
    await house.keeper.drain(house.store.launches.get(launch_id), Reason.SCALED_DOWN)
    assert told == [("scaled_down", DRAIN_GRACE_S)]
    gone = house.store.launches.get(launch_id)
    assert (gone.state, gone.reason) == (LaunchState.GONE, Reason.SCALED_DOWN)
