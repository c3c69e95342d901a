"""How others find and check this validator: well-known, leases, verdicts, evidence; unsigned reads.

Invariant: each answer can be checked by whoever reads it: signed over the caller's nonce, or made
of the miners' own signatures.
"""

from dataclasses import asdict
from typing import Annotated, Any

from bittensor_core import Keypair
from fastapi import APIRouter, Query, Response

from chutes_core.base.clock import Clock
from chutes_core.base.errors import NotFound
from chutes_core.validator.domain.verdicts import Proof
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.validator.launches.ports import ChainView
from chutes_core.validator.store.database import Store
from chutes_core.wire.control import Handshake, LeaseList
from chutes_core.wire.discovery import WELL_KNOWN_PATH, WellKnown
from chutes_core.wire.lease import place_of

VERDICTS_SHOWN_S = 24 * 3600
MAX_VERDICTS = 500


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
    clock: Clock,
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
    def known_leases(
        after: Annotated[str | None, Query(max_length=300)] = None,
        miner: Annotated[str | None, Query(max_length=64)] = None,
    ) -> LeaseList:
        place = None if after is None else place_of(after)
        return LeaseList(leases=leases.known(chain.block, after=place, miner_hotkey=miner))

    @router.get("/verdicts")
    def verdicts(since_s: Annotated[int | None, Query(ge=0)] = None) -> dict[str, Any]:
        now_s = clock.now_s()
        from_s = max(since_s or 0, now_s - VERDICTS_SHOWN_S)
        proofs = store.proofs.between(from_s, now_s + 1)[-MAX_VERDICTS:]
        return {"total": len(proofs), "items": [_verdict(proof) for proof in proofs]}

    @router.get("/evidence/{epoch}")
    def evidence(epoch: int) -> Response:
        text = store.epochs.evidence(epoch)
        if text is None:
            raise NotFound("no_such_epoch", f"there is no evidence of epoch {epoch}")
        signature = bytes(keypair.sign(text.encode())).hex()
        headers = {"X-Chutes-Hotkey": keypair.ss58_address, "X-Chutes-Signature": signature}
        return Response(text, media_type="application/json", headers=headers)

    return router


def _verdict(proof: Proof) -> dict[str, Any]:
    """Show a proof without its secret: that is revealed only when the session's keys are gone."""
    shown = asdict(proof)
    del shown["secret"]
    return shown | {"accepted": proof.accepted}
