"""One round of work: leases, plan, actions, against validators that only answer."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from bittensor_core import Keypair

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Unavailable
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.discovery import Validator
from chutes_core.miner.inventory import stand_ins
from chutes_core.miner.leases import LeaseBook
from chutes_core.miner.placement import Launch, Running
from chutes_core.miner.scheduler import Scheduler
from chutes_core.miner.settings import parse_declared
from chutes_core.miner.shares import Tenant
from chutes_core.wire.control import Handshake, LeaseList, WantedChute, WantedList
from chutes_core.wire.lease import Lease

KEY = Keypair.create_from_uri("//Miner")
VA = Validator("5" + "a" * 47, "http://a", 1000)
VB = Validator("5" + "b" * 47, "http://b", 1000)
CHUTE = WantedChute(
    chute_id="00000000-0000-0000-0000-000000000001",
    version="00000000-0000-0000-0000-000000000002",
    image_id="00000000-0000-0000-0000-000000000003",
    gpu_count=1,
    gpu_classes=("h100_sxm",),
    rao_per_hour=1,
    missing=1,
)


@dataclass
class FakeApi:
    wants: dict = field(default_factory=dict)
    known: dict = field(default_factory=dict)
    down: set = field(default_factory=set)
    says: dict = field(default_factory=dict)

    async def wanted(self, validator):
        if validator.hotkey in self.down:
            raise Unavailable("peer_unreachable", "down")
        listed = self.wants.get(validator.hotkey, ())
        said = self.says.get(validator.hotkey)
        return WantedList(block=1, lease_blocks=300, wanted=tuple(listed), handshake=said)

    async def leases(self, validator):
        return LeaseList(leases=tuple(self.known.get(validator.hotkey, ())))


@dataclass
class FakeDeployer:
    begun: list = field(default_factory=list)
    stopped: list = field(default_factory=list)
    runs: tuple = ()
    ages: dict = field(default_factory=dict)

    @property
    def books(self):
        return self

    def tenants(self, now_us):
        return tuple(
            Tenant(run.gpu_uuids, run.validator_hotkey, self.ages.get(run.launch_id, 0.0))
            for run in self.runs
        )

    def busy(self):
        return {gpu: run.validator_hotkey for run in self.runs for gpu in run.gpu_uuids}

    def launch_ids(self):
        return {gpu: run.launch_id for run in self.runs for gpu in run.gpu_uuids}

    def running(self):
        return self.runs

    def begin(self, action, validator, leases):
        self.begun.append((action, validator, leases))

    def stop(self, action):
        self.stopped.append(action)


@pytest.fixture
def parts(store):
    gpus = stand_ins(KEY.ss58_address, parse_declared("h100_sxm:2"))
    api, deployer, view = FakeApi(), FakeDeployer(), SimpleNamespace(block=100)
    known = {v.hotkey: v for v in (VA, VB)}
    directory = SimpleNamespace(validators=(VA, VB), get=known.get)
    clock = ManualClock()
    backoff, unwell = BackOff(clock), set()
    scheduler = Scheduler(
        gpus=gpus,
        view=view,
        directory=directory,
        book=LeaseBook(KEY, store, lease_blocks=40),
        runtime=SimpleNamespace(warm_images=frozenset),
        deployer=deployer,
        backoff=backoff,
        api=api,
        unwell=lambda: frozenset(unwell),
        clock=clock,
    )
    return SimpleNamespace(
        clock=clock,
        unwell=unwell,
        scheduler=scheduler,
        api=api,
        deployer=deployer,
        view=view,
        store=store,
        gpus=gpus,
        directory=directory,
    )


def leases(parts):
    return parts.store.leases(miner_hotkey=KEY.ss58_address)


async def test_each_validator_gets_a_gpu_and_its_launch(parts):
    """Two GPUs go to two validators, and each begins with the lease to its own validator."""
    parts.api.wants = {VA.hotkey: [CHUTE], VB.hotkey: [CHUTE]}
    await parts.scheduler.tick()
    assert {lease.validator_hotkey for lease in leases(parts)} == {VA.hotkey, VB.hotkey}
    assert len(parts.deployer.begun) == 2
    for action, validator, held in parts.deployer.begun:
        assert [lease.gpu_uuid for lease in held] == list(action.gpu_uuids)
        assert {lease.validator_hotkey for lease in held} == {validator.hotkey}
        assert held[0].covers(parts.view.block)


async def test_a_validator_that_is_down_stops_nobody_else(parts):
    """What one validator wants is served while another does not answer."""
    parts.api.wants = {VA.hotkey: [CHUTE]}
    parts.api.down = {VB.hotkey}
    await parts.scheduler.tick()
    assert [validator for _, validator, _ in parts.deployer.begun] == [VA]


async def test_who_wants_is_leased_first(parts):
    """At the first lease both GPUs go to the only validator that wants something."""
    parts.api.wants = {VB.hotkey: [CHUTE.model_copy(update={"missing": 2})]}
    await parts.scheduler.tick()
    assert {lease.validator_hotkey for lease in leases(parts)} == {VB.hotkey}
    assert len(parts.deployer.begun) == 2


async def test_leases_are_learned_before_new_ones_are_signed(parts):
    """A GPU that a validator remembers as leased to another one is not leased again."""
    old = Lease.sign(
        KEY,
        gpu_uuid=parts.gpus[0].uuid,
        validator_hotkey=VA.hotkey,
        from_block=90,
        to_block=130,
    )
    parts.api.known = {VB.hotkey: [old]}
    parts.api.wants = {VB.hotkey: [CHUTE.model_copy(update={"missing": 2})]}
    await parts.scheduler.learn([VB])
    await parts.scheduler.tick()
    of_first = [lease for lease in leases(parts) if lease.gpu_uuid == parts.gpus[0].uuid]
    assert of_first == [old]
    assert [action.gpu_uuids for action, _, _ in parts.deployer.begun] == [(parts.gpus[1].uuid,)]


async def test_ended_launches_are_stopped(parts):
    """A launch that its validator ended leads to a stop with its reason."""
    gpu = parts.gpus[0].uuid
    parts.deployer.runs = (Running("launch-1", VA.hotkey, (gpu,), "scaled_down"),)
    await parts.scheduler.tick()
    assert [(stop.launch_id, stop.reason) for stop in parts.deployer.stopped] == [
        ("launch-1", "scaled_down")
    ]


async def test_without_validators_nothing_is_promised(parts):
    """A miner that knows no validator signs no lease."""
    parts.directory.validators = ()
    await parts.scheduler.tick()
    assert leases(parts) == ()


async def rounds(parts, *, until, wants=None, blocks=400):
    """Let blocks pass and do a round in each, until something holds."""
    for _ in range(blocks):
        if wants is not None:
            parts.api.wants = wants
        await parts.scheduler.tick()
        if until():
            return
        parts.view.block += 1
    raise AssertionError("it never came to that")


def occupy(parts):
    """Turn what was begun into instances that run."""
    parts.deployer.runs = (
        *parts.deployer.runs,
        *(
            Running(f"launch-{n}", action.validator_hotkey, action.gpu_uuids)
            for n, (action, _, _) in enumerate(parts.deployer.begun, len(parts.deployer.runs))
        ),
    )
    parts.deployer.begun.clear()


async def test_an_idle_share_is_lent_and_drained_back(parts):
    """Both GPUs serve who wants; when the other wants too, one goes back after its lease."""
    two = CHUTE.model_copy(update={"missing": 2})
    parts.api.wants = {VB.hotkey: [two]}
    await parts.scheduler.tick()
    occupy(parts)
    assert {run.validator_hotkey for run in parts.deployer.runs} == {VB.hotkey}
    parts.deployer.ages = {run.launch_id: 5000.0 for run in parts.deployer.runs}
    await rounds(parts, until=lambda: parts.deployer.stopped, wants={VA.hotkey: [CHUTE]})
    (stop,) = parts.deployer.stopped
    assert (stop.reason, stop.drain) == ("share_returned", True)
    parts.deployer.runs = tuple(r for r in parts.deployer.runs if r.launch_id != stop.launch_id)
    await rounds(parts, until=lambda: parts.deployer.begun, wants={VA.hotkey: [CHUTE]})
    assert [validator for _, validator, _ in parts.deployer.begun] == [VA]
    assert len(parts.deployer.stopped) == 1


async def test_a_lent_share_keeps_its_minimum_run_time(parts):
    """An instance that has not had its time is not drained, however long the other waits."""
    parts.api.wants = {VB.hotkey: [CHUTE.model_copy(update={"missing": 2})]}
    await parts.scheduler.tick()
    occupy(parts)
    parts.deployer.ages = {run.launch_id: 599.0 for run in parts.deployer.runs}
    parts.api.wants = {VA.hotkey: [CHUTE]}
    for _ in range(120):
        await parts.scheduler.tick()
        parts.view.block += 1
    assert parts.deployer.stopped == []


async def test_cut_off_from_its_validator_an_instance_ends_with_its_lease(parts):
    """A silent validator's lease is not prolonged, and what runs for it leaves when it lapses."""
    parts.api.wants = {VA.hotkey: [CHUTE]}
    await parts.scheduler.tick()
    occupy(parts)
    parts.api.wants, parts.api.down = {}, {VA.hotkey}
    for _ in range(60):  # heard lately: prolonged
        await parts.scheduler.tick()
        parts.view.block += 1
    assert parts.deployer.stopped == []
    parts.clock.advance(601)
    (gpu,) = parts.deployer.runs[0].gpu_uuids
    last = max(lease.to_block for lease in leases(parts) if lease.gpu_uuid == gpu)
    await rounds(parts, until=lambda: parts.deployer.stopped)
    assert parts.view.block in range(last - 5, last + 2)
    assert {stop.reason for stop in parts.deployer.stopped} <= {"lease_lapsed", "share_returned"}
    after = [one for one in leases(parts) if one.gpu_uuid == gpu and one.from_block > last]
    assert {lease.validator_hotkey for lease in after} <= {VB.hotkey}


async def test_a_newer_protocol_drains_and_takes_nothing_new(parts):
    """A validator that no longer speaks ours is left in order; another one is served on."""
    parts.api.wants = {VA.hotkey: [CHUTE], VB.hotkey: [CHUTE]}
    await parts.scheduler.tick()
    occupy(parts)
    parts.api.says = {VA.hotkey: Handshake(protocol_min=99, protocol_max=99, version="9")}
    planned = await parts.scheduler.tick()
    assert [(stop.reason, stop.drain) for stop in parts.deployer.stopped] == [
        ("miner_outdated", True)
    ]
    assert parts.scheduler.outdated == {VA.hotkey}
    assert {(m.validator_hotkey, m.reason) for m in planned.unplaced} >= {
        (VA.hotkey, "miner_outdated")
    }
    parts.api.says = {VA.hotkey: Handshake(version="1")}
    await parts.scheduler.tick()
    assert parts.scheduler.outdated == frozenset()


async def test_an_unwell_gpu_is_left_and_not_leased_on(parts):
    """What runs on it is drained, and nothing new comes to it."""
    parts.api.wants = {VA.hotkey: [CHUTE], VB.hotkey: [CHUTE]}
    await parts.scheduler.tick()
    occupy(parts)
    run = parts.deployer.runs[0]
    parts.unwell.update(run.gpu_uuids)
    planned = await parts.scheduler.tick()
    assert [(stop.launch_id, stop.reason) for stop in parts.deployer.stopped] == [
        (run.launch_id, "gpu_unhealthy")
    ]
    assert not [a for a in planned.actions if isinstance(a, Launch)]


async def test_bounties_move_no_lease(parts):
    """What a validator claims to be urgent is leased no more GPUs than its share."""
    parts.api.wants = {VA.hotkey: [CHUTE.model_copy(update={"bounty": 8, "missing": 9})]}
    parts.api.wants[VB.hotkey] = [CHUTE]
    await parts.scheduler.tick()
    assert sorted(lease.validator_hotkey for lease in leases(parts)) == [VA.hotkey, VB.hotkey]
    assert len(parts.deployer.begun) == 2
