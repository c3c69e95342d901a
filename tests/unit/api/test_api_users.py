import pytest

from chutes_core.validator.domain.money import CHAIN_PAYMENTS, Entry, Posting, user_credit
from chutes_core.wire.signing import sign_user


async def test_registration_answers_with_addresses_and_a_fingerprint(api, alice):
    """A signed registration opens an account with its own addresses and shows a fingerprint."""
    answer = await api.register(alice, "alice")
    assert answer.status_code == 200, answer.text
    user = answer.json()
    assert user["username"] == "alice"
    assert user["hotkey"] == alice.ss58_address
    assert user["payment_address"] == "payment-1"
    assert len(user["fingerprint"]) == 48


async def test_fingerprint_is_shown_once_and_stored_as_hash(api, alice, sha256):
    """The fingerprint is stored only as its SHA-256 and never shown again."""
    user = (await api.register(alice, "alice")).json()
    account = api.services.store.accounts.get(user["user_id"])
    assert account.fingerprint_sha256 == sha256(user["fingerprint"])
    me = await api.signed(alice, "GET", "/users/me", purpose="me")
    assert "fingerprint" not in me.json()


@pytest.mark.parametrize("username", ["Al", "ALICE", "al ice", "a" * 33, "alice\n", "älice"])
async def test_bad_usernames_are_refused(api, alice, username):
    """A username has 3 to 32 of a-z 0-9 _ -."""
    answer = await api.register(alice, username)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_username")


async def test_username_and_hotkey_are_unique(api, alice, bob):
    """One account per hotkey and per username; the numbers of refused ones are not lost."""
    await api.register(alice, "alice")
    again = await api.register(alice, "alice2")
    taken = await api.register(bob, "alice")
    assert (again.status_code, again.json()["code"]) == (409, "hotkey_taken")
    assert (taken.status_code, taken.json()["code"]) == (409, "username_taken")
    assert (await api.register(bob, "bob")).json()["payment_address"] == "payment-2"


async def test_unsigned_registration_is_refused(api):
    """A registration without a signature is 401 in our error shape."""
    answer = await api.http.post("/users/register", json={"username": "x", "coldkey": "y"})
    assert answer.status_code == 401
    assert set(answer.json()) == {"detail", "code", "hint"}


async def test_signed_request_is_accepted_once(api, alice):
    """The same signed request a second time is a replay."""
    await api.register(alice, "alice")
    headers = sign_user(alice, body=None, purpose="me", nonce_s=api.clock.now_s())
    first = await api.http.get("/users/me", headers=headers)
    second = await api.http.get("/users/me", headers=headers)
    assert first.status_code == 200
    assert (second.status_code, second.json()["code"]) == (401, "auth_replayed")


async def test_two_reads_of_one_second_share_a_signature(api, alice):
    """Public clients sign whole seconds and no path: a list and a record may come in the same."""
    await api.register(alice, "alice")
    headers = sign_user(alice, body=None, purpose="images", nonce_s=api.clock.now_s())
    assert (await api.http.get("/images/?limit=1", headers=headers)).status_code == 200
    assert (await api.http.get("/images/?limit=2", headers=headers)).status_code == 200
    assert (await api.http.get("/images/none", headers=headers)).status_code == 404
    assert (await api.http.get("/images/none", headers=headers)).status_code == 401


async def test_signature_for_another_purpose_is_refused(api, alice):
    """A signature over one purpose opens no route of another."""
    await api.register(alice, "alice")
    answer = await api.signed(alice, "GET", "/users/me", purpose="api_keys")
    assert (answer.status_code, answer.json()["code"]) == (401, "auth_bad_signature")


async def test_user_id_header_must_agree(api, alice, bob):
    """X-Chutes-UserID of somebody else is refused."""
    await api.register(alice, "alice")
    other = (await api.register(bob, "bob")).json()["user_id"]
    answer = await api.signed(alice, "GET", "/users/me", purpose="me", **{"X-Chutes-UserID": other})
    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_user")


async def test_registrations_of_one_hotkey_are_limited(api, alice):
    """The sixth try of a hotkey within a minute is 429 with Retry-After, and passes later."""
    codes = [(await api.register(alice, "NO")).status_code for _ in range(6)]
    assert codes[:5] == [422] * 5
    last = await api.register(alice, "NO")
    assert codes[5] == last.status_code == 429
    assert int(last.headers["Retry-After"]) > 0
    api.clock.advance(120)
    assert (await api.register(alice, "alice")).status_code == 200


async def test_me_and_statement_show_the_ledger(api, alice):
    """Balance and statement are those of the ledger, in rao and as exact decimal text."""
    user_id = (await api.register(alice, "alice")).json()["user_id"]
    postings = (Posting(CHAIN_PAYMENTS, -5), Posting(user_credit(user_id), 5))
    api.services.store.ledger.apply(Entry("transfer:x:1:2", "payment", 1, postings))
    me = (await api.signed(alice, "GET", "/users/me", purpose="me")).json()
    assert (me["balance"], me["balance_rao"]) == ("0.000000005", 5)
    page = (await api.signed(alice, "GET", "/users/me/statement?page=0", purpose="me")).json()
    assert page["total"] == 1
    assert page["items"][0]["key"] == "transfer:x:1:2"
    assert page["items"][0]["rao"] == 5


async def test_ping_pricing_and_unknown_paths(api):
    """/ping and /pricing need nobody; an unknown path is 404 in our error shape."""
    assert (await api.http.get("/ping")).json() == {"ok": True}
    gpus = {gpu["name"]: gpu for gpu in (await api.http.get("/pricing")).json()["gpus"]}
    assert gpus["h100_sxm"] == {"name": "h100_sxm", "vram_gb": 80, "usd_per_hour": 2.35}
    missing = await api.http.get("/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_path")


async def test_body_over_the_limit_is_413_before_the_signature(api):
    """A body that is too large is refused by its length alone."""
    answer = await api.http.post("/users/register", content=b"x" * 20_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_streamed_body_over_the_limit_is_413(api):
    """A body without a length is refused as soon as it passes the limit."""

    async def endless():
        for _ in range(100):
            yield b"x" * 1_000

    answer = await api.http.post("/users/register", content=endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_malformed_json_is_422_in_our_shape(api, alice):
    """A body that is not what the route takes is 422 with code and hint."""
    answer = await api.signed(alice, "POST", "/users/register", body={"username": 5})
    assert answer.status_code == 422
    assert answer.json()["code"] == "bad_request"


async def test_schema_of_the_api_can_be_drawn_up(api):
    """The application describes itself, so every route's types can be resolved."""
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    assert {"/users/register", "/api_keys/", "/images/", "/chutes/", "/pricing"} <= set(paths)


async def test_unexpected_failure_tells_nothing(api, monkeypatch):
    """A defect is answered with 500 in our shape, without what went wrong inside."""

    def fail(*args, **kwargs):
        raise RuntimeError("secret detail")

    monkeypatch.setattr("chutes_core.validator.api.routes.public.gpu_view", fail)
    answer = await api.http.get("/pricing")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
