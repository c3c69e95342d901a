"""`chutes alias`: what is sent, and what is printed for people and for programs."""

import json

TARGETS = [
    {"chute_id": "c-1", "name": "alice/one", "slug": "alice-one"},
    {"chute_id": "c-2", "name": None, "slug": None},
]
ALIAS = {"name": "both", "model": "alice/both", "slug": "alice-both", "chutes": TARGETS}


def test_set_sends_the_chutes_in_their_order(run, api, registered):
    """The command names the alias in the path and its chutes in the body."""
    api.on("PUT /aliases/both", ALIAS)
    done = run("alias", "set", "both", "one", "robert/two")
    assert (done.code, done.out.strip()) == (0, "alice/both asks alice/one, c-2 (gone)")
    assert api.requests[-1].json == {"chutes": ["one", "robert/two"]}
    assert json.loads(run("alias", "set", "both", "one", "--json").out) == ALIAS


def test_set_without_a_chute_is_bad_use(run, api, registered):
    """An alias of nothing is not sent."""
    assert run("alias", "set", "both").code == 2
    assert api.requests == []


def test_list_and_get_show_names_models_and_chutes(run, api, registered):
    """A table for people; with --json what the validator said."""
    api.on("GET /aliases/", {"items": [ALIAS], "total": 1})
    api.on("GET /aliases/both", ALIAS)
    done = run("alias", "list")
    assert done.code == 0
    for text in ("both", "alice/both", "alice-both", "alice/one, c-2 (gone)"):
        assert text in done.out
    assert json.loads(run("alias", "list", "--json").out)["items"] == [ALIAS]
    assert "alice/one" in run("alias", "get", "both").out
    assert json.loads(run("alias", "get", "both", "--json").out) == ALIAS


def test_delete_asks_first(run, api, registered):
    """Without --yes and without anybody to ask, nothing is deleted."""
    api.on("DELETE /aliases/both", {"name": "both", "deleted": True})
    assert run("alias", "delete", "both").code == 2
    assert api.requests == []
    done = run("alias", "delete", "both", "--yes")
    assert (done.code, done.out.strip()) == (0, "deleted both")


def test_an_unknown_alias_is_said_with_its_code(run, api, registered):
    """The validator's refusal comes with code and exit code."""
    missing = {
        "detail": "you have no alias x",
        "code": "no_such_alias",
        "hint": "chutes alias list",
    }
    api.on("GET /aliases/x", missing, status=404)
    done = run("alias", "get", "x")
    assert done.code == 1
    assert "no_such_alias" in done.err
