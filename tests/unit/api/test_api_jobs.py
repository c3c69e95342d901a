"""Runs of jobs over the API: asked for, seen, cancelled, deleted, fetched."""

import itertools
import json

import pytest

from chutes_core.validator.domain.jobs import JobState, StoredFile
from chutes_core.validator.domain.money import CHAIN_PAYMENTS, Entry, Posting, user_credit

NOBODY = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
async def ready(api, alice, bob, chute_body):
    """Alice has a public chute with a job, Bob an account; both have credit."""
    for keypair, name in ((alice, "alice"), (bob, "bobby")):
        user = (await api.register(keypair, name)).json()
        postings = (
            Posting(user_credit(user["user_id"]), 10**10),
            Posting(CHAIN_PAYMENTS, -(10**10)),
        )
        api.services.store.ledger.apply(Entry(f"pay:{name}", "payment", 1, postings))
    assert (await api.upload(alice, "alice")).status_code == 202
    api.services.images.build_pending()
    body = chute_body(public=True, cords=[], jobs=[{"name": "fit", "timeout": 600, "ports": []}])
    answer = await api.signed(alice, "POST", "/chutes/", body=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["jobs"][0] == {"name": "fit", "timeout": 600, "upload": True, "ports": []}
    return api


async def run(api, who, **changes):
    wish = {"chute": "alice/embeddings", "job": "fit", "arguments": {"steps": 3}, **changes}
    return await api.signed(who, "POST", "/jobs/", body=wish)


async def test_a_run_is_asked_for_seen_and_cancelled_by_whoever_may_call(ready, alice, bob):
    """Its user alone sees it; the second cancel says the same as the first."""
    made = await run(ready, bob, timeout=60)
    assert made.status_code == 202, made.text
    job = made.json()
    assert (job["state"], job["timeout"], job["ended"]) == ("pending", 60, False)
    assert job["held_rao"] > 0
    place = f"/jobs/{job['job_id']}"
    seen = (await ready.signed(bob, "GET", place, purpose="jobs")).json()
    assert (seen["arguments"], seen["result"]) == ({"steps": 3}, None)
    for method, path in (("GET", place), ("DELETE", place), ("GET", f"{place}/files/a")):
        answer = await ready.signed(alice, method, path, purpose="jobs")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_run")
    answer = await ready.signed(alice, "POST", f"{place}/cancel", body={})
    assert answer.status_code == 404
    answer = await ready.signed(bob, "DELETE", place, purpose="jobs")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_open")
    for _ in range(2):
        gone = (await ready.signed(bob, "POST", f"{place}/cancel", body={})).json()
        assert (gone["state"], gone["reason"], gone["held_rao"]) == (
            "cancelled",
            "cancelled_by_user",
            0,
        )
    listed = (await ready.signed(bob, "GET", "/jobs/?state=cancelled", purpose="jobs")).json()
    assert [one["job_id"] for one in listed["items"]] == [job["job_id"]]
    listed = (await ready.signed(bob, "GET", "/jobs/?state=running", purpose="jobs")).json()
    assert listed["total"] == 0
    assert (await ready.signed(bob, "DELETE", place, purpose="jobs")).json()["deleted"]


async def test_a_file_comes_as_it_lies_and_nothing_else(ready, bob):
    """As a download that no browser runs; a name that is none of the run's is 404."""
    job_id = (await run(ready, bob)).json()["job_id"]
    rows = ready.services.store.jobs
    blob = ready.services.store.job_files.put([b"<script>"], limit_bytes=100)
    rows.advance(job_id, JobState.PENDING, JobState.STARTING)
    rows.advance(job_id, JobState.STARTING, JobState.RUNNING)
    rows.advance(job_id, JobState.RUNNING, JobState.SAVING, result=json.dumps({"a": [1]}))
    kept = (StoredFile("out/a.html", blob.size_bytes, blob.sha256),)
    rows.update(job_id, JobState.SAVING, files=kept)
    rows.advance(job_id, JobState.SAVING, JobState.COMPLETE)
    seen = (await ready.signed(bob, "GET", f"/jobs/{job_id}", purpose="jobs")).json()
    assert seen["result"] == {"a": [1]}
    assert seen["files"] == [{"name": "out/a.html", "size_bytes": 8, "sha256": blob.sha256}]
    place = f"/jobs/{job_id}/files"
    answer = await ready.signed(bob, "GET", f"{place}/out/a.html", purpose="jobs")
    assert (answer.status_code, answer.content) == (200, b"<script>")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    for wrong in ("a.html", "../../validator.db", "out%2F..%2F..%2Fvalidator.db"):
        answer = await ready.signed(bob, "GET", f"{place}/{wrong}", purpose="jobs")
        assert answer.status_code == 404


async def test_a_file_that_is_deleted_as_it_is_asked_for_is_404(ready, bob, monkeypatch):
    """Gone before it is looked for, or just behind: never an error of the validator's."""
    job_id = (await run(ready, bob)).json()["job_id"]
    rows, blobs = ready.services.store.jobs, ready.services.store.job_files
    blob = blobs.put([b"abc"], limit_bytes=100)
    for before, then in itertools.pairwise(("PENDING", "STARTING", "RUNNING", "SAVING")):
        rows.advance(job_id, JobState[before], JobState[then])
    rows.update(job_id, JobState.SAVING, files=(StoredFile("a", 3, blob.sha256),))
    path = blobs.path(blob.sha256)
    path.unlink()
    for find in (blobs.path, lambda sha256: path):
        monkeypatch.setattr(blobs, "path", find)
        answer = await ready.signed(bob, "GET", f"/jobs/{job_id}/files/a", purpose="jobs")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_job_file")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"chute": "nobody/none"}, 404, "no_such_chute"),
        ({"job": "evil"}, 404, "no_such_job"),
        ({"timeout": 601}, 422, "bad_timeout"),
        ({"arguments": {"self": 1}}, 422, "bad_job_data"),
        ({"arguments": {"x": "\ud800"}}, 422, "bad_job_data"),
        ({"arguments": [1]}, 422, "bad_request"),
    ],
)
async def test_a_wish_that_breaks_a_rule_says_which(ready, bob, changes, status, code):
    """Nothing is stored, nothing is held."""
    answer = await run(ready, bob, **changes)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"]


async def test_too_large_a_wish_is_413(ready, bob):
    """Before anything of it is read as JSON."""
    answer = await run(ready, bob, arguments={"x": "y" * 1_100_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_runs_are_listed_by_pages_newest_first(ready, bob):
    """By chute and state, and only those of chutes that the key may call."""
    made = []
    for _ in range(3):
        made.insert(0, (await run(ready, bob)).json())
        ready.clock.advance(1)
    await ready.signed(bob, "POST", f"/jobs/{made[1]['job_id']}/cancel", body={})

    async def listed(query, key=None):
        path = f"/jobs/?{query}"
        if key is None:
            answer = await ready.signed(bob, "GET", path, purpose="jobs")
        else:
            answer = await ready.with_key(key, "GET", path)
        page = answer.json()
        return page["total"], [one["job_id"] for one in page["items"]]

    ids = [one["job_id"] for one in made]
    assert await listed("limit=2") == (3, ids[:2])
    assert await listed("limit=2&page=1") == (3, ids[2:])
    assert await listed("limit=2&page=2") == (3, [])
    assert await listed("state=pending") == (2, [ids[0], ids[2]])
    assert await listed("state=pending&limit=1&page=1") == (2, [ids[2]])
    assert await listed("chute=alice/embeddings&limit=1") == (3, ids[:1])
    assert await listed("chute=nobody/none") == (0, [])
    chute_id = made[0]["chute_id"]
    for object_id, total in ((chute_id, 3), (NOBODY, 0)):
        scope = {"object_type": "chutes", "action": "invoke", "object_id": object_id}
        assert (await listed("", await ready.key(bob, scopes=[scope])))[0] == total


async def test_a_key_runs_what_its_scopes_name(ready, bob):
    """A key that may not call a chute runs none of its jobs and sees no run."""
    no_calls = await ready.key(bob, scopes=[{"object_type": "images"}])
    wish = {"chute": "alice/embeddings", "job": "fit"}
    answer = await ready.with_key(no_calls, "POST", "/jobs/", body=wish)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope")
    calls = await ready.key(bob, scopes=[{"object_type": "chutes", "action": "invoke"}])
    job_id = (await ready.with_key(calls, "POST", "/jobs/", body=wish)).json()["job_id"]
    assert (await ready.with_key(no_calls, "GET", f"/jobs/{job_id}")).status_code == 403
    assert (await ready.with_key(no_calls, "GET", "/jobs/")).json()["total"] == 0
    assert (await ready.with_key(calls, "GET", "/jobs/")).json()["total"] == 1
    assert (await ready.with_key(calls, "GET", f"/jobs/{NOBODY}")).status_code == 404


async def test_a_chute_of_jobs_alone_cannot_be_warmed_up(ready, alice):
    """The answer says what to do instead; its phase says the same."""
    answer = await ready.signed(alice, "GET", "/chutes/warmup/embeddings", purpose="chutes")
    assert (answer.status_code, answer.json()["code"]) == (409, "jobs_only")
    shown = (await ready.signed(alice, "GET", "/chutes/embeddings", purpose="chutes")).json()
    assert shown["phase"] == "jobs_only"
