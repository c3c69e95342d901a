"""The routes of money and roles: signed by the hotkey, never by a key alone."""

import pytest
from bittensor_core import Keypair
from fastapi import FastAPI

from chutes_core.validator.accounts.linking import Linking
from chutes_core.validator.api.errors import install_errors
from chutes_core.validator.api.router import build_router as build_users
from chutes_core.validator.api.routes.money import build_router
from chutes_core.validator.billing.deposits import Deposits
from chutes_core.validator.billing.gifts import Gifts
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.billing.refunds import Refunds
from chutes_core.validator.billing.roles import DepositTerms
from chutes_core.validator.domain.money import REVENUE, Entry, Posting, Rate, user_credit
from chutes_core.validator.domain.snapshot import PayerView
from chutes_core.validator.gateway.holds import Holds

RAO = 10**9


class NoChain:
    def has_permit(self, hotkey_ss58):
        return hotkey_ss58 == Keypair.create_from_uri("//V").ss58_address

    def owns_subnet(self, hotkey_ss58):
        return False

    def owner_of(self, hotkey_ss58):
        return None


@pytest.fixture
async def money(api):
    """The same application with the routes of money, and a hold of a running call."""
    services = api.services
    terms = DepositTerms(required_rao=RAO, enforced=True, lock_s=0)
    api.holds = Holds()
    app = FastAPI()
    install_errors(app)
    app.include_router(
        build_router(
            services,
            deposits=Deposits(services.store, services.clock, terms),
            refunds=Refunds(services.store, services.clock, terms, fee_rao=lambda: 100),
            linking=Linking(
                services.store,
                services.clock,
                NoChain(),
                validator_ss58="v",
                roles_changed=lambda user, roles: None,
            ),
            gifts=Gifts(services.store, services.clock, api.holds.spending),
        )
    )
    app.include_router(build_users(services))
    api.http._transport.app = app
    api.payments = Payments(
        services.store, services.clock, Deposits(services.store, services.clock, terms)
    )
    return api


def grant(api, user_id, rao):
    entry = Entry("g", "payment", 1, (Posting(user_credit(user_id), rao), Posting(REVENUE, -rao)))
    api.services.store.ledger.apply(entry)


async def test_the_deposit_that_is_asked_can_be_read_by_anybody(money):
    """Amount, lock, and whether it is required."""
    answer = await money.http.get("/developer_deposit")
    assert answer.json()["developer_deposit_rao"] == RAO


async def test_a_refund_needs_the_hotkeys_signature(money, alice):
    """An admin key reads deposits and cannot ask one back."""
    await money.register(alice, "alice")
    key = await money.key(alice, admin=True)
    assert (await money.with_key(key, "GET", "/users/me/deposits")).status_code == 200
    answer = await money.with_key(key, "POST", "/return_developer_deposit", body={})
    assert (answer.status_code, answer.json()["code"]) == (403, "needs_signature")
    answer = await money.signed(
        alice, "POST", "/return_developer_deposit", body={"address": alice.ss58_address}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "no_deposit")
    body = {"deposits": ["x"], "address": alice.ss58_address}
    answer = await money.signed(alice, "POST", "/return_developer_deposit", body=body)
    assert answer.status_code == 404


async def test_credit_can_be_given_but_not_what_running_calls_hold(money, alice, bob):
    """A gift moves credit once; holds stay."""
    me = (await money.register(alice, "alice")).json()
    you = (await money.register(bob, "bob")).json()
    grant(money, me["user_id"], 2 * RAO)
    payer = PayerView(me["user_id"], "", 2 * RAO)
    money.holds.open(payer, Rate("r", 1, RAO))
    body = {"user_id": you["user_id"], "amount": "1.5"}
    answer = await money.signed(alice, "POST", "/users/balance_transfer", body=body)
    assert answer.status_code == 402
    body = {"user_id": "bob", "amount": "0.5", "key": "k"}
    for _ in range(2):
        answer = await money.signed(alice, "POST", "/users/balance_transfer", body=body)
        assert answer.status_code == 200, answer.text
        shown = {name: answer.json()[name] for name in ("transferred", "from_balance")}
        assert shown == {"transferred": 0.5, "from_balance": 1.5}  # for the public client
    ledger = money.services.ledger
    assert ledger.balance(me["user_id"]) == 2 * RAO - RAO // 2
    assert ledger.balance(you["user_id"]) == RAO // 2
    for wrong in ({"amount": "-1"}, {"amount": "NaN"}, {"amount": "0.4"}, {"user_id": "alice"}):
        answer = await money.signed(
            alice, "POST", "/users/balance_transfer", body={**body, **wrong}
        )
        assert answer.status_code in (409, 422), answer.text


async def test_a_link_is_asked_for_with_a_signature_in_the_query(money, alice, bob):
    """GET, as the public client does; the second account gets 409."""
    await money.register(alice, "alice")
    await money.register(bob, "bob")
    validator = Keypair.create_from_uri("//V")
    for user, name, status in ((alice, "alice", 200), (alice, "alice", 409), (bob, "bob", 409)):
        text = f"{validator.ss58_address}:{name}"
        signature = bytes(validator.sign(text.encode())).hex()
        path = f"/users/link_validator?hotkey={validator.ss58_address}&signature={signature}"
        answer = await money.signed(user, "GET", path, purpose="me")
        assert answer.status_code == status, answer.text
    answer = await money.signed(alice, "GET", "/users/me/links", purpose="me")
    assert answer.json()["total"] == 1
    path = f"/users/me/links/{validator.ss58_address}"
    assert (await money.signed(alice, "DELETE", path, purpose="me")).status_code == 200
    assert (await money.signed(alice, "GET", "/users/me", purpose="me")).json()["permissions"] == []


async def test_recovery_asks_for_a_proven_coldkey(money, alice, bob):
    """A claim recovers nothing."""
    await money.register(alice, "alice")
    body = {"user": "alice", "coldkey": alice.ss58_address, "signature": "00"}
    body["expiry"] = money.clock.now_s() + 100
    answer = await money.signed(bob, "POST", "/users/recover", body=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "not_recoverable")
    answer = await money.signed(alice, "POST", "/users/coldkey_proof", body={})
    assert (answer.status_code, answer.json()["code"]) == (409, "hotkey_not_owned")
