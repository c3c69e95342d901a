"""Deposits, refunds, links, coldkeys and gifts.

Invariant: whatever moves money out, links or proves is signed by the account's hotkey; an API key
only reads.
"""

from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from chutes_core.base.errors import Forbidden, Invalid
from chutes_core.base.units import RAO_PER_TAO, format_tao, parse_tao
from chutes_core.validator.accounts.linking import Linking
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards, Signature
from chutes_core.validator.api.forms import Form, Short
from chutes_core.validator.api.limits import SlowBuckets
from chutes_core.validator.api.services import Services
from chutes_core.validator.api.views import account_view, when
from chutes_core.validator.billing.deposits import Deposits
from chutes_core.validator.billing.gifts import Gifts
from chutes_core.validator.billing.refunds import Refunds
from chutes_core.validator.domain.deposits import Deposit, Refund

MAX_BODY_BYTES = 16 * 1024
_LINKING: dict[int | str, dict[str, Any]] = {409: {}, 502: {}, 504: {}}  # a read that writes
PER_ADDRESS = {"burst": 10, "refill_s": 60}


class RefundForm(Form):
    """POST /return_developer_deposit."""

    address: Short | None = None
    deposits: list[Short] | None = Field(default=None, min_length=1, max_length=100)


class ProofForm(Form):
    """POST /users/coldkey_proof; without a signature the chain is asked."""

    coldkey: Short | None = None
    expiry: int | None = None
    signature: Short | None = None


class RecoverForm(Form):
    """POST /users/recover, signed by the new hotkey."""

    user: Short
    coldkey: Short
    expiry: int
    signature: Short


class GiftForm(Form):
    """POST /users/balance_transfer; ``amount`` is in TAO."""

    user_id: Short
    amount: Decimal = Field(max_digits=30)
    key: Short | None = None


def build_router(
    services: Services, *, deposits: Deposits, refunds: Refunds, linking: Linking, gifts: Gifts
) -> APIRouter:
    """Return the routes of money and roles."""
    guards = Guards(services.accounts, services.store.nonces, services.clock, services.failures)
    router = APIRouter(tags=["money"], route_class=bounded_route(MAX_BODY_BYTES))
    _add_deposits(router, guards, services, deposits, refunds)
    _add_links(router, guards, linking)
    _add_coldkeys(router, guards, services, linking)
    _add_gifts(router, guards, services, gifts)
    return router


def _add_deposits(
    router: APIRouter, guards: Guards, services: Services, deposits: Deposits, refunds: Refunds
) -> None:
    me = Annotated[Principal, Depends(guards.user("me"))]

    @router.get("/developer_deposit")
    def asked() -> dict[str, Any]:
        terms = deposits.terms
        return {
            "developer_deposit": format_tao(terms.required_rao),
            "developer_deposit_rao": terms.required_rao,
            "required": terms.enforced,
            "lock_seconds": terms.lock_s,
        }

    @router.post("/return_developer_deposit")
    def give_back(caller: me, form: RefundForm) -> dict[str, Any]:
        account = _signed(caller)
        refund = refunds.request(account, deposit_ids=form.deposits, address=form.address)
        return refund_view(refund)

    @router.get("/users/me/deposits")
    def mine(caller: me) -> dict[str, Any]:
        caller.require_admin()
        user_id = caller.account.user_id
        notice = services.store.notices.get(user_id)
        return {
            "deposit_address": caller.account.deposit_address,
            "held_rao": deposits.held_rao(user_id),
            "required_rao": deposits.terms.required_rao,
            "chutes_drain_at": None if notice is None else when(notice.drains_at_s),
            "deposits": [deposit_view(one) for one in deposits.of(user_id)],
            "refunds": [refund_view(one) for one in deposits.refunds_of(user_id)],
        }

    @router.get("/users/me/refunds/{refund_id}")
    def one_refund(caller: me, refund_id: str) -> dict[str, Any]:
        caller.require_admin()
        return refund_view(refunds.get(caller.account, refund_id))


def _add_links(router: APIRouter, guards: Guards, linking: Linking) -> None:
    me = Annotated[Principal, Depends(guards.user("me"))]

    @router.get("/users/link_validator", responses=_LINKING)
    def link_validator(
        caller: me,
        hotkey: Annotated[str, Query(max_length=64)],
        signature: Annotated[str, Query(max_length=200)],
    ) -> dict[str, Any]:
        link = linking.link(_signed(caller), "validator", hotkey, signature)
        return {"status": "linked", "hotkey": link.hotkey_ss58, "kind": link.kind}

    @router.get("/users/link_subnet_owner", responses=_LINKING)
    def link_owner(
        caller: me,
        hotkey: Annotated[str, Query(max_length=64)],
        signature: Annotated[str, Query(max_length=200)],
    ) -> dict[str, Any]:
        link = linking.link(_signed(caller), "subnet_owner", hotkey, signature)
        return {"status": "linked", "hotkey": link.hotkey_ss58, "kind": link.kind}

    @router.get("/users/me/links")
    def links(caller: me) -> dict[str, Any]:
        items = [
            {"hotkey": x.hotkey_ss58, "kind": x.kind, "valid": x.valid, "at": when(x.linked_at_s)}
            for x in linking.of(caller.account)
        ]
        return {"total": len(items), "items": items}

    @router.delete("/users/me/links/{hotkey}")
    def unlink(caller: me, hotkey: str) -> dict[str, Any]:
        linking.unlink(_signed(caller), hotkey)
        return {"status": "unlinked", "hotkey": hotkey}


def _add_coldkeys(router: APIRouter, guards: Guards, services: Services, linking: Linking) -> None:
    me = Annotated[Principal, Depends(guards.user("me"))]
    buckets = SlowBuckets(services.clock, **PER_ADDRESS)

    @router.post("/users/coldkey_proof")
    def prove(caller: me, form: ProofForm) -> dict[str, Any]:
        account = _signed(caller)
        if form.coldkey is None or form.expiry is None or form.signature is None:
            return {"coldkey": linking.prove_by_chain(account), "proven": "chain"}
        linking.prove(account, form.coldkey, form.expiry, form.signature)
        return {"coldkey": form.coldkey, "proven": "signature"}

    async def new_hotkey(request: Request, _signature: Signature = None) -> str:
        buckets.take(request.client.host if request.client else "unknown")
        return await guards.signer(request)

    @router.post("/users/recover")
    def recover(
        hotkey_ss58: Annotated[str, Depends(new_hotkey)], form: RecoverForm
    ) -> dict[str, Any]:
        account, fingerprint = linking.recover(
            form.user, hotkey_ss58, form.coldkey, form.expiry, form.signature
        )
        return account_view(account) | {"fingerprint": fingerprint}


def _add_gifts(router: APIRouter, guards: Guards, services: Services, gifts: Gifts) -> None:
    me = Annotated[Principal, Depends(guards.user("me"))]

    @router.post("/users/balance_transfer")
    def give(caller: me, form: GiftForm) -> dict[str, Any]:
        account = _signed(caller)
        if not form.amount.is_finite():
            raise Invalid("bad_amount", "the amount is a number of TAO", hint="e.g. 0.5")
        rao = parse_tao(str(form.amount))
        entry = gifts.give(account, form.user_id, rao, key=form.key)
        left_rao = services.ledger.balance(account.user_id)
        return {
            "status": "transferred",
            "key": entry.key,
            "rao": rao,
            "tao": format_tao(rao),
            # What the public client prints (after a dollar sign, though all amounts here are TAO).
            "transferred": rao / RAO_PER_TAO,
            "from_balance": left_rao / RAO_PER_TAO,
        }


def deposit_view(deposit: Deposit) -> dict[str, Any]:
    """Return a deposit."""
    return {
        "deposit_id": deposit.deposit_id,
        "rao": deposit.rao,
        "tao": format_tao(deposit.rao),
        "from": deposit.source_ss58,
        "block": deposit.block_number,
        "at": when(deposit.at_s),
        "unlocks_at": when(deposit.unlocks_at_s),
        "state": deposit.state.value,
        "refund_id": deposit.refund_id or None,
    }


def refund_view(refund: Refund) -> dict[str, Any]:
    """Return a refund."""
    return {
        "refund_id": refund.refund_id,
        "state": refund.state.value,
        "address": refund.destination_ss58,
        "amount_rao": refund.amount_rao,
        "paid_rao": refund.paid_rao,
        "fee_rao": refund.fee_rao,
        "requested_at": when(refund.requested_at_s),
        "updated_at": when(refund.updated_at_s),
        "extrinsic_hash": refund.extrinsic_hash or None,
        "block": refund.block_number,
        "reason": refund.reason or None,
    }


def _signed(caller: Principal) -> Any:
    if caller.key is not None:
        raise Forbidden(
            "needs_signature",
            "this needs the hotkey's signature, not an API key",
            hint="run it where the hotkey is configured",
        )
    return caller.account
