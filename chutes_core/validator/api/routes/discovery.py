"""How others find and check this validator: well-known, leases, evidence. All unsigned reads.

Invariant: each answer can be checked by whoever reads it: signed over the caller's nonce, or made
of the miners' own signatures.
"""

from typing import Annotated

from bittensor_core import Keypair
from fastapi import APIRouter, Query, Response

from chutes_core.base.errors import NotFound
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.validator.launches.ports import ChainView
from chutes_core.validator.store.database import Store
from chutes_core.wire.control import Handshake, LeaseList
from chutes_core.wire.discovery import WELL_KNOWN_PATH, WellKnown


def build_router(
    *,
    keypair: Keypair,
    public_url: str,
    netuid: int,
    genesis_hash: str,
    version: str,
    leases: LeaseBook,
    chain: ChainView,
    store: Store,
) -> APIRouter:
    """Return the discovery routes."""
    router = APIRouter(tags=["discovery"])

    @router.get(WELL_KNOWN_PATH)
    async def well_known(nonce: Annotated[str, Query(min_length=8, max_length=64)]) -> WellKnown:
        return WellKnown(
            handshake=Handshake(version=version),
            hotkey=keypair.ss58_address,
            url=public_url,
            netuid=netuid,
            genesis_hash=genesis_hash,
            nonce=nonce,
        ).signed(keypair)

    @router.get("/leases")
    def known_leases() -> LeaseList:
        return LeaseList(leases=tuple(leases.known(chain.block))[:10_000])

    @router.get("/evidence/{epoch}")
    def evidence(epoch: int) -> Response:
        text = store.epochs.evidence(epoch)
        if text is None:
            raise NotFound("no_such_epoch", f"there is no evidence of epoch {epoch}")
        signature = bytes(keypair.sign(text.encode())).hex()
        headers = {"X-Chutes-Hotkey": keypair.ss58_address, "X-Chutes-Signature": signature}
        return Response(text, media_type="application/json", headers=headers)

    return router
