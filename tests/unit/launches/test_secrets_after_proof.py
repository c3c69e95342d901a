"""Secrets leave the vault for an instance that passed its proof, and for no other."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.validator.domain.launches import Launch, LaunchState, Reason
from chutes_core.validator.domain.verdicts import Attestation, GpuVerdict, Proof
from chutes_core.validator.launches import instance
from chutes_core.validator.launches.lifecycle import Lifecycle
from chutes_core.validator.launches.service import LaunchLimits
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.store.database import Store
from tests.unit.launches.test_autoscale_target import chute

ID, CHUTE_ID, VERSION = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
LAUNCH = Launch(
    launch_id=ID,
    chute_id=CHUTE_ID,
    version=VERSION,
    image_id="i",
    miner_hotkey="m",
    miner_coldkey="ck",
    registered_at_block=1,
    node_id="n",
    gpu_uuids=("GPU-1",),
    gpu_class="l4",
    relay_host="127.0.0.1",
    relay_port=1,
    profile="test",
    stand_in=True,
    requested_at_s=1,
    deadline_s=9,
)
VERDICT = GpuVerdict("GPU-1", "l4", True, Reason.NONE, 1, 1, 2, 2)
PROOF = Proof("p", ID, "m", "test", "instance", True, 1, 1, (VERDICT,), "", "")


class World:
    """A lifecycle over a store, an attestor with a fixed outcome, and what happened in order."""

    def __init__(self, folder, monkeypatch, attestation):
        self.happened = []
        self.store = Store(folder / "v.db", clock=ManualClock())
        self._attestation = attestation
        vault = Vault(b"m" * 32)
        self.store.launches.insert(
            LAUNCH, vault.seal(ID, "key", b"k"), vault.seal(ID, "ticket", b"t")
        )
        self.store.launches.advance(ID, LaunchState.REQUESTED, LaunchState.LISTENING)
        self.store.chutes.get = lambda chute_id: replace(
            chute(), chute_id=chute_id, version=VERSION
        )
        monkeypatch.setattr(instance, "probe", self.note("probe"))
        monkeypatch.setattr(instance, "start", self._start)
        self.lifecycle = Lifecycle(
            store=self.store,
            attestor=self,
            plans=SimpleNamespace(first=lambda launch: None),
            admissions=SimpleNamespace(judged=lambda launch, proof: None),
            vault=vault,
            clock=ManualClock(),
            limits=LaunchLimits(profile="test"),
            secrets_of=self._secrets_of,
            changed=self.note("snapshot"),
        )

    def note(self, what):
        async def noted(*_, **__):
            self.happened.append(what)

        return noted

    async def attest(self, plan):
        del plan
        self.happened.append("proof")
        return self._attestation

    def _secrets_of(self, chute):
        del chute
        self.happened.append("secrets")
        return {"TOKEN": "t"}

    async def _start(self, address, order, *, timeout_s):
        del address, timeout_s
        assert order.secrets == {"TOKEN": "t"}
        self.happened.append("start")

    async def run(self):
        """Carry the launch to its end or until it is active."""
        self.lifecycle.begin(ID)
        await next(iter(self.lifecycle._tasks.values()))
        launch = self.store.launches.get(ID)
        self.store.close()
        return launch


async def test_secrets_come_after_the_proof(tmp_path, monkeypatch):
    """Proof, then a sealed connection that answers, then the secrets with the code."""
    world = World(tmp_path, monkeypatch, Attestation(PROOF, Reason.NONE, "", root=b"r" * 32))
    assert (await world.run()).state is LaunchState.ACTIVE
    assert world.happened == ["proof", "probe", "secrets", "start", "probe", "snapshot"]


@pytest.mark.parametrize(
    "attestation",
    [
        Attestation(PROOF, Reason.PROOF_WRONG, "", root=b"r" * 32),
        Attestation(PROOF, Reason.NONE, "", root=None),
        Attestation(replace(PROOF, gpus=()), Reason.NONE, "", root=b"r" * 32),
        Attestation(
            replace(PROOF, gpus=(replace(VERDICT, accepted=False),)),
            Reason.NONE,
            "",
            root=b"r" * 32,
        ),
    ],
)
async def test_without_a_whole_proof_no_secret_is_opened(tmp_path, monkeypatch, attestation):
    """A wrong, late or partial proof, or none of the keys, ends the launch before any secret."""
    world = World(tmp_path, monkeypatch, attestation)
    assert (await world.run()).state is LaunchState.GONE
    assert "secrets" not in world.happened
    assert "start" not in world.happened
