"""Two validators and two miners: leases, guards, and calls that are answered and charged once."""

import httpx
import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import Conflict, Forbidden
from chutes_core.wire.control import Inventory, WantedList
from scripts.localnet import miner_hotkey, wait_until
from tests.e2e.patience import CALL_S, PATIENCE_S
from tests.e2e.people import rich_user
from tests.e2e.signed import call, launches_of, lease, leases_of, request_launch, wanted_of


@pytest.fixture(scope="module")
def user(network):
    """A paying user of validator 1, with the echo chute deployed there."""
    user = rich_user(network.net, network.url(1))
    user.deploy("echo")
    user.chutes("warmup", "echo")
    return user


# A chute that stays wanted: no miner here has such a GPU, and none can come first.
NOBODYS = ("min_vram_gb_per_gpu=16", 'include=["b200"]')


def gpus_of(process):
    return {str(uuid) for uuid in process.ready["gpus"]}


def test_each_gpu_is_leased_to_one_validator_and_both_validators_know_it(network):
    """Both validators hold the same miners' signed leases, one for each GPU, none in conflict."""
    gpus = gpus_of(network.miners[0]) | gpus_of(network.miners[1])

    def known(number):
        return {lease.gpu_uuid: lease for lease in leases_of(network.url(number))}

    wait_until(
        lambda: all(gpus <= set(known(n)) for n in (1, 2)), PATIENCE_S, "leases to be exchanged"
    )
    leases = [lease for lease in leases_of(network.url(1)) if lease.gpu_uuid in gpus]
    assert not any(a.conflicts_with(b) for a in leases for b in leases)
    for one in leases:
        one.check_signature()


def test_a_call_is_answered_and_charged_exactly_once(network, user):
    """The answer's invocation id stands in the ledger once, and the charge is above zero."""
    answer = user.post("/c/demo-echo/echo", {"text": "hello"})
    assert answer.json() == "hello"
    invocation = answer.headers["X-Chutes-InvocationID"]
    wait_until(lambda: invocation in dict(user.charges()), PATIENCE_S, "the call to be settled")
    charges = [rao for charged, rao in user.charges() if charged == invocation]
    assert len(charges) == 1
    assert charges[0] > 0


def test_a_hotkey_without_a_permit_gets_no_inventory(network):
    """A registered miner that asks another miner is refused with the reason."""
    miner = network.miners[0]
    with pytest.raises(Forbidden) as caught:
        call(
            miner_hotkey(2),
            "GET",
            f"http://{miner.ready['axon']}",
            "/inventory",
            Inventory,
            peer=str(miner.ready["hotkey"]),
        )
    assert caught.value.code == "no_permit"
    assert caught.value.hint


def test_an_unregistered_hotkey_is_refused_by_a_validator(network):
    """Control calls take registered hotkeys only."""
    stranger = Keypair.create_from_uri("//Stranger")
    with pytest.raises(Forbidden) as caught:
        call(
            stranger,
            "GET",
            network.url(1),
            "/miner/wanted",
            WantedList,
            peer=network.hotkey(1),
        )
    assert caught.value.code == "not_registered"


def test_a_launch_without_a_lease_is_refused(network, user):
    """A GPU that is not leased to this validator cannot serve it."""
    keypair = miner_hotkey(3)
    user.deploy_as_own("stream", changes=[NOBODYS])
    listed = wanted_of(keypair, network.url(1), network.hotkey(1))
    wanted = next(w for w in listed.wanted)
    other = lease(keypair, "GPU-3", network.hotkey(2), listed.block)
    with pytest.raises(Forbidden) as caught:
        request_launch(keypair, network.url(1), network.hotkey(1), wanted, "GPU-3", [other])
    assert caught.value.code == "no_lease"


def test_a_gpu_leased_twice_earns_nothing(network, user):
    """An honest instance runs until its miner signs a second lease; then both refuse the GPU."""
    url1, url2 = network.url(1), network.url(2)
    found = []

    def honest():
        found[:] = [
            (keypair, launch)
            for keypair in (miner_hotkey(1), miner_hotkey(2))
            for launch in launches_of(keypair, url1, network.hotkey(1))
            if launch.state == "active"
        ]
        return bool(found)

    wait_until(honest, PATIENCE_S, "an honest instance")
    keypair, active = found[0]
    gpu = active.gpu_uuids[0]
    block = wanted_of(keypair, url1, network.hotkey(1)).block
    second = lease(keypair, gpu, network.hotkey(2), block)
    # Validator 2 learns the second lease from a launch request, and refuses it: it knows both.
    owner = rich_user(network.net, url2, "other")
    owner.deploy_as_own("echo", changes=[NOBODYS])
    wanted = wanted_of(keypair, url2, network.hotkey(2)).wanted[0]
    with pytest.raises(Conflict) as caught:
        request_launch(keypair, url2, network.hotkey(2), wanted, gpu, [second])
    assert caught.value.code == "lease_conflict"

    # Validator 1 hears of it from validator 2 and ends the instance with that reason.
    def ended():
        launches = launches_of(keypair, url1, network.hotkey(1))
        return next(one for one in launches if one.launch_id == active.launch_id)

    wait_until(lambda: ended().state == "gone", PATIENCE_S, "the conflict to be heard of")
    assert ended().reason == "lease_conflict"


def test_discovery_is_signed_over_the_callers_nonce(network):
    """The committed URL answers as the validator whose hotkey committed it."""
    answer = httpx.get(
        network.url(1) + "/.well-known/chutes", params={"nonce": "abcdefgh"}, timeout=CALL_S
    ).json()
    assert answer["hotkey"] == network.hotkey(1)
    assert answer["nonce"] == "abcdefgh"
    assert answer["signature"]
