"""Aliases over HTTP: set, listed, read, deleted; what they may name, and how they are named."""

import pytest

from chutes_core.validator.catalog import aliases as rules
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.launches.snapshot import build
from chutes_core.validator.launches.vault import Vault


@pytest.fixture
async def ready(api, alice, bob, chute_body):
    """Alice with the chutes embeddings and spare, and Bob with the private chute secret."""
    await api.register(alice, "alice")
    await api.register(bob, "robert")
    for keypair, user in ((alice, "alice"), (bob, "robert")):
        await api.upload(keypair, user)
    for keypair, name in ((alice, "embeddings"), (alice, "spare"), (bob, "secret")):
        answer = await api.signed(keypair, "POST", "/chutes/", body=chute_body(name=name))
        assert answer.status_code == 200, answer.text
    return api


async def put(api, keypair, name, *chutes):
    return await api.signed(keypair, "PUT", f"/aliases/{name}", body={"chutes": list(chutes)})


async def get(api, keypair, path="/aliases/"):
    return await api.signed(keypair, "GET", path, purpose="aliases")


def picture(api):
    return build(api.services.store, Vault(b"m" * 32), lambda chute: Rate("r", 1, 1))


async def test_an_alias_keeps_its_chutes_in_order(ready, alice):
    """Set, read, listed, set anew and deleted: the chutes stand in the order that was given."""
    made = await put(ready, alice, "both", "spare", "alice/embeddings")
    assert made.status_code == 200, made.text
    assert (made.json()["model"], made.json()["slug"]) == ("alice/both", "alice-both")
    assert [one["name"] for one in made.json()["chutes"]] == ["alice/spare", "alice/embeddings"]
    assert (await get(ready, alice, "/aliases/both")).json() == made.json()
    assert (await get(ready, alice)).json()["items"] == [made.json()]
    again = await put(ready, alice, "both", "embeddings")
    assert [one["slug"] for one in again.json()["chutes"]] == ["alice-embeddings"]
    assert again.json()["created_at"] == made.json()["created_at"]
    gone = await ready.signed(alice, "DELETE", "/aliases/both", purpose="aliases")
    assert gone.json() == {"name": "both", "deleted": True}
    for answer in (
        await get(ready, alice, "/aliases/both"),
        await ready.signed(alice, "DELETE", "/aliases/both", purpose="aliases"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_alias")


async def test_the_gateways_picture_has_it(ready, alice):
    """Under slug and user/name for everybody, under the plain name for its owner alone."""
    made = (await put(ready, alice, "both", "spare", "embeddings")).json()
    aliases = picture(ready).aliases
    owner = ready.services.store.accounts.by_username("alice").user_id
    assert set(aliases) == {"alice-both", "alice/both", f"{owner}:both"}
    (view,) = set(aliases.values())
    assert (view.owner_id, view.name) == (owner, "both")
    assert list(view.chute_ids) == [one["chute_id"] for one in made["chutes"]]


async def test_a_chute_that_is_gone_stays_without_its_name(ready, alice):
    """A deleted chute is shown by its id, and counts again once it is deployed again."""
    made = (await put(ready, alice, "both", "spare", "embeddings")).json()
    await ready.signed(alice, "DELETE", "/chutes/spare", purpose="chutes")
    shown = (await get(ready, alice, "/aliases/both")).json()["chutes"]
    assert shown[0] == {"chute_id": made["chutes"][0]["chute_id"], "name": None, "slug": None}
    assert shown[1] == made["chutes"][1]


async def test_anothers_private_chute_is_no_chute(ready, alice):
    """What the owner may not see cannot be told from what is not there."""
    hidden = await put(ready, alice, "both", "robert/secret")
    missing = await put(ready, alice, "both", "robert/nothing")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.json()["code"] == missing.json()["code"] == "no_such_chute"


async def test_an_alias_names_no_alias(ready, alice, bob):
    """No alias leads to an alias, itself included; another's is not even known."""
    await put(ready, alice, "both", "spare", "embeddings")
    for reference in ("both", "alice/both", "alice-both"):
        for name in ("more", "both"):
            answer = await put(ready, alice, name, "spare", reference)
            assert (answer.status_code, answer.json()["code"]) == (422, "alias_of_alias")
    answer = await put(ready, bob, "more", "alice/both")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_chute")
    shown = (await get(ready, alice, "/aliases/both")).json()["chutes"]
    assert len(shown) == 2


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("embeddings", "name_taken"),
        ("Both", "bad_alias_name"),
        ("a b", "bad_alias_name"),
        ("a:b", "bad_alias_name"),
        ("-a", "bad_alias_name"),
        ("x" * 64, "bad_alias_name"),
        ("0b4deb3d-0ead-507e-8786-df31b4a8999b", "bad_alias_name"),
    ],
)
async def test_a_name_that_does_not_fit_is_refused(ready, alice, name, code):
    """A name is short and plain, and no chute's."""
    answer = await put(ready, alice, name, "spare")
    assert answer.json()["code"] == code
    assert answer.status_code == (409 if code == "name_taken" else 422)


async def test_names_of_chutes_and_aliases_do_not_meet(ready, alice, bob, chute_body):
    """No slug and no full name means two things, whichever of the two came first."""
    deployed = await ready.signed(bob, "POST", "/chutes/", body=chute_body(name="alice/fast"))
    assert deployed.status_code == 200
    deployed = await ready.signed(bob, "POST", "/chutes/", body=chute_body(name="alice-plain"))
    assert deployed.status_code == 200
    for name in ("fast", "plain"):
        answer = await put(ready, alice, name, "spare")
        assert (answer.status_code, answer.json()["code"]) == (409, "slug_taken")
    assert (await put(ready, alice, "a.b", "spare")).status_code == 200
    answer = await put(ready, alice, "a_b", "spare")
    assert (answer.status_code, answer.json()["code"]) == (409, "slug_taken")
    answer = await ready.signed(alice, "POST", "/chutes/", body=chute_body(name="A.B"))
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    answer = await ready.signed(alice, "POST", "/chutes/", body=chute_body(name="a-b"))
    assert answer.status_code == 200
    assert answer.json()["slug"].startswith("alice-a-b-")


async def test_the_chutes_of_an_alias_are_bounded(ready, alice, chute_body):
    """One chute at least, so many at most, each once."""
    names = [f"c{number}" for number in range(rules.MAX_TARGETS + 1)]
    for name in names:
        await ready.signed(alice, "POST", "/chutes/", body=chute_body(name=name))
    for chutes in ([], names, ["spare", "embeddings", "alice-spare"]):
        answer = await put(ready, alice, "many", *chutes)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_alias_targets")
    assert (await put(ready, alice, "many", *names[1:])).status_code == 200


async def test_the_aliases_of_an_account_are_bounded(ready, alice, monkeypatch):
    """One more is refused; what is there can be set anew."""
    assert rules.MAX_ALIASES == 100
    monkeypatch.setattr(rules, "MAX_ALIASES", 2)
    for name in ("a", "b"):
        assert (await put(ready, alice, name, "spare")).status_code == 200
    answer = await put(ready, alice, "c", "spare")
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_aliases")
    assert (await put(ready, alice, "b", "embeddings")).status_code == 200


async def test_too_large_a_form_is_refused(ready, alice):
    """The body has a bound."""
    answer = await put(ready, alice, "a", "x" * 20_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_only_the_owner_or_its_admin_key_manages_aliases(ready, alice, bob):
    """An ordinary key does not, and nobody sees another's."""
    await put(ready, alice, "both", "spare")
    key = await ready.key(alice, scopes=[{"object_type": "chutes", "action": "invoke"}])
    for method, path in (("GET", "/aliases/"), ("DELETE", "/aliases/both")):
        assert (await ready.with_key(key, method, path)).status_code == 403
    admin = await ready.key(alice, admin=True)
    assert (await ready.with_key(admin, "GET", "/aliases/both")).status_code == 200
    assert (await get(ready, bob)).json()["items"] == []
    assert (await get(ready, bob, "/aliases/both")).status_code == 404
