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
from chutes_core.miner.placement import Running
from chutes_core.miner.scheduler import Scheduler
from chutes_core.miner.settings import parse_declared
from chutes_core.wire.control import LeaseList, WantedChute, WantedList
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

    async def wanted(self, validator):
        if validator.hotkey in self.down:
            raise Unavailable("peer_unreachable", "down")
        listed = self.wants.get(validator.hotkey, ())
        return WantedList(block=1, lease_blocks=300, wanted=tuple(listed))

    async def leases(self, validator):
        return LeaseList(leases=tuple(self.known.get(validator.hotkey, ())))


@dataclass
class FakeDeployer:
    begun: list = field(default_factory=list)
    stopped: list = field(default_factory=list)
    runs: tuple = ()

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
    backoff = BackOff(ManualClock())
    scheduler = Scheduler(
        gpus=gpus,
        view=view,
        directory=directory,
        book=LeaseBook(KEY, store, lease_blocks=40),
        runtime=SimpleNamespace(warm_images=frozenset),
        deployer=deployer,
        backoff=backoff,
        api=api,
    )
    return SimpleNamespace(
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
