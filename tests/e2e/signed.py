"""Signed control calls in the name of any hotkey, for tests that play a neuron by hand."""

import asyncio

import httpx

from chutes_core.base.errors import Forbidden
from chutes_core.wire.control import (
    GpuClaim,
    Handshake,
    LaunchGrant,
    LaunchList,
    LaunchRequest,
    LeaseList,
    WantedList,
)
from chutes_core.wire.lease import Lease
from chutes_core.wire.peers import SignedClient
from tests.e2e.patience import CALL_S


def call(keypair, method, url, path, answer, *, peer, body=None):
    """Make one signed call and return its verified answer, or raise its typed error."""

    async def once():
        async with SignedClient(keypair, timeout_s=CALL_S) as client:
            return await client.call(method, url, path, answer, peer_hotkey_ss58=peer, body=body)

    return asyncio.run(once())


def leases_of(url):
    """Return the leases that a validator knows."""
    return LeaseList.model_validate(httpx.get(url + "/leases", timeout=CALL_S).json()).leases


def launches_of(keypair, url, peer):
    """Return a miner's launches at a validator."""
    return call(keypair, "GET", url, "/miner/launches", LaunchList, peer=peer).launches


def wanted_of(keypair, url, peer):
    """Return a validator's wanted list."""
    return call(keypair, "GET", url, "/miner/wanted", WantedList, peer=peer)


def lease(keypair, gpu, validator, block, blocks=2000):
    """Return a lease of a GPU to a validator from now on."""
    return Lease.sign(
        keypair,
        gpu_uuid=gpu,
        validator_hotkey=validator,
        from_block=max(0, block - 5),
        to_block=block + blocks,
    )


def request_launch(keypair, url, peer, wanted, gpu, leases, *, relay_port=9):
    """Ask a validator for a launch of a wanted chute on one stand-in GPU."""
    claim = GpuClaim(uuid=gpu, index=0, gpu_class="h100_sxm", vram_bytes=80 << 30, stand_in=True)
    request = LaunchRequest(
        handshake=Handshake(version="test"),
        chute_id=wanted.chute_id,
        version=wanted.version,
        node_id="by-hand",
        runtime="process",
        relay_port=relay_port,
        gpus=(claim,),
        leases=tuple(leases),
    )
    return call(keypair, "POST", url, "/miner/launches", LaunchGrant, peer=peer, body=request)


def known_to(keypair, url, peer):
    """Tell whether a validator has read of this hotkey's registration."""
    try:
        wanted_of(keypair, url, peer)
    except Forbidden:
        return False
    return True
