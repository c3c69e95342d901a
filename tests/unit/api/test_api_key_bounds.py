"""What a key can be bound to, as the API takes, keeps and shows it."""

import pytest

from chutes_core.base import ids
from chutes_core.validator.domain.money import CHAIN_PAYMENTS, Entry, Posting, user_credit


@pytest.fixture
async def owner(api, alice):
    await api.register(alice, "alice")
    return api


@pytest.fixture
async def priced(owner, alice):
    """Alice with credit and an image, at a validator that asks a deploy fee of 1000 rao."""
    account = owner.services.accounts.find("alice")
    credit = (Posting(user_credit(account.user_id), 10_000), Posting(CHAIN_PAYMENTS, -10_000))
    owner.services.store.ledger.apply(Entry("gift", "payment", 1, credit))
    owner.services.chutes._fee_rao = lambda selector: 1_000
    await owner.upload(alice, "alice")
    return owner, 1_000


async def made(api, alice, **body):
    form = {"name": "k", "admin": True, **body}
    return await api.signed(alice, "POST", "/api_keys/", body=form)


def in_seconds(api, seconds):
    return api.clock.now_s() + seconds


async def test_bounds_are_kept_and_shown(owner, alice):
    """Expiry, budget and rate come back with the key, and what it has spent."""
    bounds = {"expires_at": "2999-01-31T12:00:00Z", "budget_rao": 5, "calls_per_minute": 7}
    key = (await made(owner, alice, **bounds)).json()
    shown = await owner.signed(alice, "GET", f"/api_keys/{key['api_key_id']}", purpose="api_keys")
    for view in (key, shown.json()):
        assert view["expires_at"] == "2999-01-31T12:00:00+00:00"
        assert (view["budget_rao"], view["spent_rao"], view["calls_per_minute"]) == (5, 0, 7)


async def test_an_expired_key_is_401_here_too(owner, alice):
    """The control plane refuses a key from the second on at which it expires."""
    key = (await made(owner, alice, expires_at=in_seconds(owner, 100))).json()["secret_key"]
    assert (await owner.with_key(key, "GET", "/users/me")).status_code == 200
    owner.clock.advance(100)
    answer = await owner.with_key(key, "GET", "/users/me")
    assert (answer.status_code, answer.json()["code"]) == (401, "key_expired")


@pytest.mark.parametrize(
    ("bounds", "code"),
    [
        ({"expires_at": "2001-01-01T00:00:00Z"}, "bad_expiry"),
        ({"expires_at": "soon"}, "bad_request"),
        ({"budget_rao": 0}, "bad_request"),
        ({"budget_rao": 10**30}, "bad_request"),
        ({"calls_per_minute": 0}, "bad_request"),
    ],
)
async def test_bounds_that_cannot_be_are_refused(owner, alice, bounds, code):
    """A key that could never be used, or never be bounded, is not made."""
    answer = await made(owner, alice, **bounds)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    listed = await owner.signed(alice, "GET", "/api_keys/", purpose="api_keys")
    assert listed.json()["total"] == 0


async def test_keys_are_listed_by_a_part_of_their_name(owner, alice):
    """The list holds the keys whose name contains what was asked for."""
    for name in ("laptop", "server"):
        await made(owner, alice, name=name)
    path = "/api_keys/?name=lap"
    listed = (await owner.signed(alice, "GET", path, purpose="api_keys")).json()
    assert [key["name"] for key in listed["items"]] == ["laptop"]


@pytest.mark.parametrize("bound", ["expires_at", "budget_rao", "calls_per_minute"])
async def test_a_bounded_admin_key_makes_no_keys(owner, alice, bound):
    """Else it would make one without its bounds; it still lists keys and deletes itself."""
    value = in_seconds(owner, 100) if bound == "expires_at" else 5
    key = (await made(owner, alice, **{bound: value})).json()
    text, form = key["secret_key"], {"name": "free", "admin": True}
    refused = await owner.with_key(text, "POST", "/api_keys/", body=form)
    assert (refused.status_code, refused.json()["code"]) == (403, "key_bounded")
    assert (await owner.with_key(text, "GET", "/api_keys/")).json()["total"] == 1
    gone = await owner.with_key(text, "DELETE", f"/api_keys/{key['api_key_id']}")
    assert gone.status_code == 200


async def test_last_use_is_shown(owner, alice):
    """A key that was used says when."""
    key = (await made(owner, alice)).json()
    assert key["last_used_at"] is None
    listed = (await owner.with_key(key["secret_key"], "GET", "/api_keys/")).json()
    assert listed["items"][0]["last_used_at"] is not None


async def test_a_scope_names_its_object_by_name_or_id(owner, alice, chute_body):
    """Names of one's own chutes and images become ids; an unknown name is 404, nothing is made."""
    await owner.upload(alice, "alice")
    assert (await owner.signed(alice, "POST", "/chutes/", body=chute_body())).status_code == 200
    scopes = [
        {"object_type": "chutes", "object_id": "embeddings", "action": "invoke"},
        {"object_type": "images", "object_id": "app:1"},
        {"object_type": "images", "object_id": "alice/app:1", "action": "read"},
        {"object_type": "chutes", "object_id": ids.chute_id("alice", "later")},
    ]
    key = (await made(owner, alice, admin=False, scopes=scopes)).json()
    chute_id, image_id = ids.chute_id("alice", "embeddings"), ids.image_id("alice", "app", "1")
    assert [scope["object_id"] for scope in key["scopes"]] == [
        *(chute_id, image_id, image_id, ids.chute_id("alice", "later"))
    ]
    text = key["secret_key"]
    assert (await owner.with_key(text, "GET", "/images/app:1")).status_code == 200
    assert (await owner.with_key(text, "GET", "/chutes/embeddings")).status_code == 403
    for kind, name, code in (
        ("chutes", "nobody", "no_such_chute"),
        ("images", "nothing", "no_such_image"),
        ("images", "bob/app:1", "no_such_image"),
    ):
        wrong = [{"object_type": kind, "object_id": name}]
        answer = await made(owner, alice, admin=False, scopes=wrong)
        assert (answer.status_code, answer.json()["code"]) == (404, code)


async def test_a_deploy_fee_counts_against_the_keys_budget(priced, alice, chute_body):
    """A key whose budget is below the fee cannot deploy; one that covers it pays once."""
    api, fee_rao = priced
    small = (await made(api, alice, budget_rao=fee_rao - 1)).json()["secret_key"]
    large = (await made(api, alice, budget_rao=fee_rao + 1)).json()["secret_key"]
    fee = {"accept_fee": "true"}
    refused = await api.with_key(small, "POST", "/chutes/", body=chute_body(), params=fee)
    assert (refused.status_code, refused.json()["code"]) == (402, "key_budget_spent")
    done = await api.with_key(large, "POST", "/chutes/", body=chute_body(), params=fee)
    assert done.status_code == 200, done.text
    listed = (await api.with_key(large, "GET", "/api_keys/")).json()["items"]
    assert sorted(key["spent_rao"] for key in listed) == [0, fee_rao]
    again = chute_body(name="second")
    refused = await api.with_key(large, "POST", "/chutes/", body=again, params=fee)
    assert (refused.status_code, refused.json()["code"]) == (402, "key_budget_spent")
