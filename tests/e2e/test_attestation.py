"""Node attestation, idle GPUs beside a launch, light challenges and rounds, on a whole network."""

import pytest

from chutes_core.base.errors import Conflict
from scripts.localnet import Localnet, miner_hotkey, wait_until
from tests.e2e.patience import PATIENCE_S
from tests.e2e.people import rich_user
from tests.e2e.signed import launches_of, lease, request_launch, wanted_of


@pytest.fixture(scope="module")
def attested(tmp_path_factory):
    """One validator that challenges often, one miner with two GPUs, and a served chute."""
    folder = tmp_path_factory.mktemp("attested")
    with Localnet(folder, block_seconds=0.5, tempo=40) as net:
        validator = net.start_validator(1, extra={"LIGHT_SECONDS": "8", "ROUND_ONE_IN": "12"})
        net.register_miner(1)
        net.start_miner(1, extra={"DECLARE_GPU": "h100_sxm:2"})
        user = rich_user(net, str(validator.ready["url"]))
        user.deploy("echo")
        user.chutes("warmup", "echo")
        yield user, str(validator.ready["hotkey"])


def proofs(user, scope):
    return [proof for proof in user.get("/verdicts")["items"] if proof["scope"] == scope]


def test_a_nodes_idle_gpus_are_attested_together_before_they_serve(attested):
    """One launch of the system chute for both GPUs; it ends as attested and keeps its proof."""
    user, validator = attested
    launches = launches_of(miner_hotkey(1), user.url, validator)
    attestation = next(launch for launch in launches if launch.reason == "attested")
    assert attestation.state == "gone"
    assert len(attestation.gpu_uuids) == 2
    proof = next(p for p in proofs(user, "node") if p["launch_id"] == attestation.launch_id)
    assert proof["accepted"]
    assert len(proof["gpus"]) == 2

    def admitted():
        listed = wanted_of(miner_hotkey(1), user.url, validator).admission.admitted
        return set(listed) == set(attestation.gpu_uuids)

    wait_until(admitted, PATIENCE_S, "both to be admitted and no round to call for one")


def test_an_instances_launch_challenges_the_hosts_idle_gpu_too(attested):
    """Two verdicts: its own GPU, and an idle one that serves nothing."""
    user, _ = attested
    proof = proofs(user, "instance")[0]
    assert [gpu["idle"] for gpu in proof["gpus"]] == [False, True]
    assert proof["accepted"]


def test_a_live_instance_is_challenged_again_and_serves_on(attested):
    """Light challenges and rounds are accepted, and the instance answers between them."""
    user, _ = attested
    wait_until(lambda: len(proofs(user, "light")) >= 3, PATIENCE_S, "light challenges")
    assert all(proof["accepted"] for proof in proofs(user, "light"))
    assert user.post("/c/demo-echo/echo", {"text": "still here"}).json() == "still here"


def test_an_idle_gpu_is_called_to_rounds(attested):
    """It has no instance that could be asked: its miner brings it, and it stays admitted."""
    user, validator = attested
    launches = launches_of(miner_hotkey(1), user.url, validator)
    serving = {uuid for one in launches if one.state == "active" for uuid in one.gpu_uuids}

    def of_the_idle_one():
        node = [{gpu["gpu_uuid"] for gpu in proof["gpus"]} for proof in proofs(user, "node")]
        return [uuids for uuids in node if not uuids & serving]

    # while a GPU serves, only a round can ask for the other: its admission is hours young
    wait_until(lambda: bool(of_the_idle_one()), PATIENCE_S, "an idle GPU in a round")
    assert all(proof["accepted"] for proof in proofs(user, "node"))


def test_a_gpu_without_an_attestation_is_not_admitted(attested):
    """A launch request for a leased but unknown GPU is refused with the way out."""
    user, validator = attested
    nobody = ("min_vram_gb_per_gpu=16", 'include=["b200"]')  # a GPU that no miner here has
    user.deploy_as_own("stream", changes=[nobody])
    keypair = miner_hotkey(1)
    found = []

    def listed():
        found.append(wanted_of(keypair, user.url, validator))
        return bool(found[-1].wanted)

    wait_until(listed, PATIENCE_S, "something wanted")
    now = found[-1]
    mine = lease(keypair, "GPU-new", validator, now.block)
    with pytest.raises(Conflict) as caught:
        request_launch(keypair, user.url, validator, now.wanted[0], "GPU-new", [mine])
    assert caught.value.code == "not_admitted"
    assert caught.value.hint
