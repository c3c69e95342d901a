import asyncio
import itertools
import json

import pytest

from chutes_core.base import ids
from chutes_core.validator.domain.launches import Launch, LaunchState
from chutes_core.wire.signing import sign_user

ZERO = "00000000-0000-0000-0000-0000000000"


@pytest.fixture
async def ready(api, alice, bob):
    await api.register(alice, "alice")
    await api.register(bob, "bob")
    uploaded = await api.upload(alice, "alice")
    assert uploaded.status_code == 202, uploaded.text
    return api


def launch_of(chute, **changes):
    fields = {
        "launch_id": ZERO + "01",
        "chute_id": chute["chute_id"],
        "version": chute["version"],
        "image_id": chute["image"]["image_id"],
        "miner_hotkey": "miner",
        "miner_coldkey": "cold",
        "registered_at_block": 1,
        "node_id": "n",
        "gpu_uuids": ("GPU-1",),
        "gpu_class": "l4",
        "relay_host": "127.0.0.1",
        "relay_port": 1,
        "profile": "test",
        "stand_in": True,
        "requested_at_s": 1,
        "deadline_s": 9,
        **changes,
    }
    return Launch(**fields)


def bring_up(store, launch):
    store.launches.insert(launch, b"k", b"t")
    states = list(LaunchState)[: list(LaunchState).index(LaunchState.ACTIVE) + 1]
    for before, after in itertools.pairwise(states):
        changes = {"active_at_s": 5} if after is LaunchState.ACTIVE else {}
        store.launches.advance(launch.launch_id, before, after, **changes)


async def test_deployed_chute_has_the_public_ids(ready, alice, chute_body):
    """Chute id, version and slug are those that the public client computes."""
    answer = await ready.signed(alice, "POST", "/chutes/", body=chute_body())
    assert answer.status_code == 200, answer.text
    chute = answer.json()
    image_id = ids.image_id("alice", "app", "1")
    assert chute["chute_id"] == ids.chute_id("alice", "embeddings")
    assert chute["version"] == ids.chute_version(image_id, "chute = 1\n")
    assert chute["slug"] == "alice-embeddings"
    assert chute["supported_gpus"][0] == "a4000"
    assert chute["current_estimated_price"]["rao"]["hour"] == 500_000
    assert chute["hot"] is False


async def test_new_code_supersedes_and_old_versions_stay(ready, alice, chute_body):
    """New code is a new version under the same id and slug; the same code keeps the version."""
    first = (await ready.signed(alice, "POST", "/chutes/", body=chute_body())).json()
    same = (await ready.signed(alice, "POST", "/chutes/", body=chute_body())).json()
    body = chute_body(code="chute = 2\n")
    second = (await ready.signed(alice, "POST", "/chutes/", body=body)).json()
    assert same["version"] == first["version"] != second["version"]
    assert second["chute_id"] == first["chute_id"]
    assert [first["new"], second["new"]] == [True, False]
    versions = ready.services.store.chutes.versions(first["chute_id"])
    assert [version.version for version in versions] == [first["version"], second["version"]]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"image": "missing:1"}, 404, "no_such_image"),
        ({"ref_str": "no colon"}, 422, "bad_ref_str"),
        ({"filename": "../x.py"}, 422, "bad_filename"),
        ({"code": "x" * 600_000}, 413, "code_too_large"),
        ({"cords": []}, 422, "no_cords"),
        ({"name": ZERO + "01"}, 422, "bad_chute_name"),
        ({"node_selector": {"gpu_count": 9}}, 422, "bad_selector"),
        ({"node_selector": {"include": ["rtx"]}}, 422, "unknown_gpu"),
        ({"node_selector": {"max_hourly_price_per_gpu": 0.1}}, 422, "no_gpu_fits"),
        ({"concurrency": 0}, 422, "out_of_range"),
        ({"jobs": [{"name": "a b"}]}, 422, "bad_job"),
        ({"jobs": [{"name": "j", "timeout": 29}]}, 422, "bad_job"),
        ({"jobs": [{"name": "j"}, {"name": "j"}]}, 422, "job_twice"),
        ({"jobs": [{"name": f"j{n}"} for n in range(17)]}, 422, "too_many_jobs_declared"),
        (
            {"jobs": [{"name": "j", "ports": [{"name": "a", "port": 5353, "proto": "udp"}]}]},
            422,
            "not_supported",
        ),
        ({"jobs": [{"name": "j", "ports": [{"name": "a", "port": 1023}]}]}, 422, "bad_job"),
        ({"jobs": [{"name": "j", "ports": [{"name": "a", "port": 65536}]}]}, 422, "bad_job"),
        ({"jobs": [{"name": "j", "ports": [{"name": "A", "port": 8080}]}]}, 422, "bad_job"),
        (
            {"jobs": [{"name": "j", "ports": [{"name": "a", "port": 8080, "proto": "ftp"}]}]},
            422,
            "bad_job",
        ),
        (
            {"jobs": [{"name": "j", "ports": [{"name": n, "port": 8080} for n in "ab"]}]},
            422,
            "bad_job",
        ),
        (
            {"jobs": [{"name": "j", "ports": [{"name": "a", "port": n} for n in (8080, 8081)]}]},
            422,
            "bad_job",
        ),
        (
            {
                "jobs": [
                    {"name": "j", "ports": [{"name": f"a{n}", "port": 8080 + n} for n in range(9)]}
                ]
            },
            422,
            "bad_job",
        ),
        ({"jobs": [{"name": "j", "ports": [{"name": "a", "port": 0}]}]}, 422, "bad_job"),
        ({"tee": True}, 422, "not_supported"),
    ],
)
async def test_bad_chutes_are_refused_and_nothing_is_stored(
    ready, alice, chute_body, changes, status, code
):
    """Everything is checked before anything is stored."""
    answer = await ready.signed(alice, "POST", "/chutes/", body=chute_body(**changes))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ready.services.store.chutes.all_live() == ()


async def test_unbuilt_image_cannot_be_deployed(ready, alice, chute_body):
    """An image must be built first."""
    store = ready.services.store
    store.images.advance(ids.image_id("alice", "app", "1"), "built", "pending", at_s=1)
    answer = await ready.signed(alice, "POST", "/chutes/", body=chute_body())
    assert (answer.status_code, answer.json()["code"]) == (409, "image_not_built")


async def test_private_image_of_another_user_is_not_found(ready, bob, chute_body):
    """A private image of somebody else is as good as missing."""
    answer = await ready.signed(bob, "POST", "/chutes/", body=chute_body(image="alice/app:1"))
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_image")


async def test_sharing_gives_and_takes_sight(ready, alice, bob, chute_body):
    """A shared chute is visible to the other user until it is unshared."""
    await ready.signed(alice, "POST", "/chutes/", body=chute_body())
    path, share = "/chutes/alice/embeddings", {"chute_id_or_name": "embeddings"}
    share["user_id_or_name"] = "bob"
    assert (await ready.signed(bob, "GET", path, purpose="chutes")).status_code == 404
    assert (await ready.signed(alice, "POST", "/chutes/share", body=share)).status_code == 200
    assert (await ready.signed(bob, "GET", path, purpose="chutes")).status_code == 200
    listed = await ready.signed(bob, "GET", "/chutes/", purpose="chutes")
    assert listed.json()["total"] == 1
    assert listed.json()["cord_refs"]
    foreign = await ready.signed(bob, "POST", "/chutes/unshare", body=share)
    assert foreign.status_code == 404
    mine = {**share, "chute_id_or_name": "alice/embeddings"}
    denied = await ready.signed(bob, "POST", "/chutes/unshare", body=mine)
    assert (denied.status_code, denied.json()["code"]) == (403, "not_owner")
    await ready.signed(alice, "POST", "/chutes/unshare", body=share)
    assert (await ready.signed(bob, "GET", path, purpose="chutes")).status_code == 404


async def test_key_scoped_to_one_chute_sees_only_that(ready, alice, chute_body):
    """A scope with an object id reaches that chute and lists only it."""
    one = (await ready.signed(alice, "POST", "/chutes/", body=chute_body())).json()
    await ready.signed(alice, "POST", "/chutes/", body=chute_body(name="other"))
    scope = {"object_type": "chutes", "object_id": one["chute_id"], "action": "read"}
    key = await ready.key(alice, scopes=[scope])
    listed = (await ready.with_key(key, "GET", "/chutes/")).json()
    assert [item["name"] for item in listed["items"]] == ["embeddings"]
    assert (await ready.with_key(key, "GET", "/chutes/embeddings")).status_code == 200
    assert (await ready.with_key(key, "GET", "/chutes/other")).status_code == 403
    assert (await ready.with_key(key, "DELETE", "/chutes/embeddings")).status_code == 403


async def test_delete_hides_the_chute_and_frees_its_slug(ready, alice, chute_body):
    """A deleted chute is gone for readers; deploying it again brings it back under its slug."""
    await ready.signed(alice, "POST", "/chutes/", body=chute_body())
    gone = await ready.signed(alice, "DELETE", "/chutes/embeddings", purpose="chutes")
    assert gone.status_code == 200
    missing = await ready.signed(alice, "GET", "/chutes/embeddings", purpose="chutes")
    assert missing.status_code == 404
    again = (await ready.signed(alice, "POST", "/chutes/", body=chute_body())).json()
    assert (again["slug"], again["new"]) == ("alice-embeddings", True)


async def test_equal_slugs_are_made_unique(ready, alice, chute_body):
    """Two names that give one DNS label get two slugs."""
    first = (await ready.signed(alice, "POST", "/chutes/", body=chute_body(name="a.b"))).json()
    second = (await ready.signed(alice, "POST", "/chutes/", body=chute_body(name="a_b"))).json()
    assert first["slug"] == "alice-a-b"
    assert second["slug"].startswith("alice-a-b-")
    assert len(second["slug"]) <= 58


async def test_a_name_that_differs_in_case_alone_is_taken(ready, alice, bob, chute_body):
    """Calls find a chute by its name in any case, so one name is one chute of its owner."""
    await ready.signed(alice, "POST", "/chutes/", body=chute_body())
    answer = await ready.signed(alice, "POST", "/chutes/", body=chute_body(name="Embeddings"))
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    listed = await ready.signed(alice, "GET", "/chutes/", purpose="chutes")
    assert listed.json()["total"] == 1
    await ready.upload(bob, "bob")
    other = await ready.signed(bob, "POST", "/chutes/", body=chute_body(name="Embeddings"))
    assert other.status_code == 200, other.text


@pytest.mark.parametrize("depth", [200, 900, 20_000])
async def test_a_schema_nested_without_end_is_refused(ready, alice, chute_body, depth):
    """However deep the brackets go, the answer is the caller's mistake, and nothing is stored."""
    body = json.dumps(chute_body(cords=[{"function": "f", "path": "/f", "input_schema": "DEEP"}]))
    body = body.replace('"DEEP"', '{"items":' * depth + "{}" + "}" * depth).encode()
    headers = sign_user(alice, body=body, purpose="", nonce_s=ready.clock.now_s())
    headers["Content-Type"] = "application/json"
    answer = await ready.http.post("/chutes/", content=body, headers=headers)
    assert answer.status_code in (400, 413, 422), answer.text
    assert set(answer.json()) == {"detail", "code", "hint"}
    listed = await ready.signed(alice, "GET", "/chutes/", purpose="chutes")
    assert listed.json()["total"] == 0


async def test_image_in_use_is_not_deleted(ready, alice, chute_body):
    """An image on which a chute runs stays."""
    await ready.signed(alice, "POST", "/chutes/", body=chute_body())
    answer = await ready.signed(alice, "DELETE", "/images/app:1", purpose="images")
    assert (answer.status_code, answer.json()["code"]) == (409, "image_in_use")


async def test_instances_show_their_state(ready, alice, chute_body):
    """An active launch makes the chute hot and is listed as a verified instance."""
    chute = (await ready.signed(alice, "POST", "/chutes/", body=chute_body())).json()
    bring_up(ready.services.store, launch_of(chute))
    item = (await ready.signed(alice, "GET", "/chutes/embeddings", purpose="chutes")).json()
    assert item["hot"] is True
    (instance,) = item["instances"]
    assert (instance["active"], instance["verified"], instance["test"]) == (True, True, True)


async def test_warmup_wakes_the_chute_and_ends_when_hot(ready, alice, chute_body):
    """Waiting counts as demand; the stream tells each status and ends with hot."""
    chute = (await ready.signed(alice, "POST", "/chutes/", body=chute_body())).json()
    waiting = asyncio.create_task(
        ready.signed(alice, "GET", "/chutes/warmup/embeddings", purpose="chutes")
    )
    await asyncio.wait_for(ready.second_wake.wait(), 10)
    bring_up(ready.services.store, launch_of(chute))
    answer = await asyncio.wait_for(waiting, 10)
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert events[0]["status"] == "cold"
    assert events[-1]["status"] == "hot"
    assert set(ready.woken) == {chute["chute_id"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"tagline": "\ud800"},
        {"code": "x = '\ud800'"},
        {"name": "a\ud800"},
        {"image": "\ud800:1"},
        {"image": "\ud800"},
        {"node_selector": {"include": ["\ud800"]}},
        {"node_selector": {"max_hourly_price_per_gpu": "NaN"}},
        {"node_selector": {"max_hourly_price_per_gpu": 1e300}},
        {"node_selector": {"gpu_count": 10**30}},
        {"scaling_threshold": "Infinity"},
        {"concurrency": 10**30},
        {"concurrency": -1},
        {"cords": [{"function": "f\x00", "path": "/f"}]},
        {"standard_template": "\x00"},
    ],
)
async def test_odd_values_are_422_never_500(ready, alice, chute_body, changes):
    """Lone surrogates, no-numbers and giants are the caller's mistakes, told as such."""
    answer = await ready.signed(alice, "POST", "/chutes/", body=chute_body(**changes))
    assert answer.status_code in (404, 422), answer.text
    assert set(answer.json()) == {"detail", "code", "hint"}


async def test_schema_with_odd_text_is_kept(ready, alice, chute_body):
    """A schema may hold whatever JSON holds, and comes back equal."""
    cord = {"function": "f", "path": "/f", "input_schema": {"pattern": "\u2028\x00é"}}
    deployed = await ready.signed(alice, "POST", "/chutes/", body=chute_body(cords=[cord]))
    assert deployed.status_code == 200, deployed.text
    assert deployed.json()["cords"][0]["input_schema"] == cord["input_schema"]


@pytest.mark.parametrize("reference", ["%00", "%ff", "..%2f..", "a" * 5_000, "%F0%9F%98%80", "x:y"])
@pytest.mark.parametrize("kind", ["images", "chutes"])
async def test_odd_references_are_not_found(ready, alice, kind, reference):
    """Whatever a path names, the answer is 404 in our shape."""
    answer = await ready.signed(alice, "GET", f"/{kind}/{reference}", purpose=kind)
    assert answer.status_code == 404, answer.text
    assert set(answer.json()) == {"detail", "code", "hint"}
