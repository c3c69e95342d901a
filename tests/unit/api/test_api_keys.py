import re

import pytest


@pytest.fixture
async def registered(api, alice, bob):
    await api.register(alice, "alice")
    await api.register(bob, "bob")
    return api


async def test_key_is_shown_once_and_found_by_its_hash(registered, alice):
    """A new key has the public format; afterwards only its id and scopes are shown."""
    text = await registered.key(alice, admin=True)
    assert re.fullmatch(r"cpk_[0-9a-f]{32}\.[0-9a-f]{32}\.[A-Za-z0-9]{32}", text)
    listed = (await registered.signed(alice, "GET", "/api_keys/", purpose="api_keys")).json()
    assert listed["total"] == 1
    assert "secret_key" not in listed["items"][0]
    assert text.rsplit(".", 1)[1] not in str(listed)


@pytest.mark.parametrize(
    "make",
    [
        lambda key: {"Authorization": f"Bearer {key}"},
        lambda key: {"Authorization": f"Basic {key}"},
        lambda key: {"Authorization": key},
        lambda key: {"X-API-Key": key},
    ],
)
async def test_key_is_accepted_in_four_forms(registered, alice, make):
    """Bearer, Basic, bare and X-API-Key carry a key."""
    key = await registered.key(alice, admin=True)
    answer = await registered.http.get("/users/me", headers=make(key))
    assert answer.status_code == 200, answer.text


async def test_wrong_secret_wrong_ids_and_nonsense_are_401(registered, alice, bob):
    """Each part of a key must fit."""
    key = await registered.key(alice, admin=True)
    other = await registered.key(bob, admin=True)
    bad = [
        key[:-1] + ("a" if key[-1] != "a" else "b"),
        ".".join([other.split(".")[0], *key.split(".")[1:]]),
        "cpk_x",
    ]
    for text in bad:
        answer = await registered.with_key(text, "GET", "/users/me")
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_key")
    none = await registered.http.get("/users/me")
    assert (none.status_code, none.json()["code"]) == (401, "no_credentials")


async def test_scoped_key_may_do_only_what_its_scope_says(registered, alice):
    """A key with one scope is 403 elsewhere, and cannot make keys."""
    key = await registered.key(alice, scopes=[{"object_type": "chutes", "action": "read"}])
    assert (await registered.with_key(key, "GET", "/chutes/")).status_code == 200
    for method, path, body in (
        ("GET", "/users/me", None),
        ("POST", "/api_keys/", {"name": "x", "admin": True}),
        ("GET", "/api_keys/", None),
    ):
        answer = await registered.with_key(key, method, path, body=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope")


async def test_key_without_scopes_is_refused_unless_admin(registered, alice):
    """A key that could do nothing is not made."""
    answer = await registered.signed(alice, "POST", "/api_keys/", body={"name": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "no_scopes")


async def test_deleted_key_is_dead_at_once(registered, alice):
    """A deleted key is 401 from then on and is not listed."""
    key = await registered.key(alice, admin=True)
    listed = (await registered.with_key(key, "GET", "/api_keys/")).json()
    key_id = listed["items"][0]["api_key_id"]
    gone = await registered.signed(alice, "DELETE", f"/api_keys/{key_id}", purpose="api_keys")
    assert gone.json()["api_key_id"] == key_id
    assert (await registered.with_key(key, "GET", "/users/me")).status_code == 401
    again = await registered.signed(alice, "DELETE", f"/api_keys/{key_id}", purpose="api_keys")
    assert (again.status_code, again.json()["code"]) == (404, "no_such_key")


async def test_keys_of_others_are_not_found(registered, alice, bob):
    """A user reads and deletes its own keys only."""
    await registered.key(alice, admin=True)
    listed = (await registered.signed(alice, "GET", "/api_keys/", purpose="api_keys")).json()
    key_id = listed["items"][0]["api_key_id"]
    for method in ("GET", "DELETE"):
        answer = await registered.signed(bob, method, f"/api_keys/{key_id}", purpose="api_keys")
        assert answer.status_code == 404
