"""Secrets, reports, logos and instance logs over HTTP."""

import json

import pytest

from chutes_core.base import ids
from chutes_core.runner.loader import _RESERVED, _RESERVED_PREFIXES
from chutes_core.validator.accounts import secrets as rules
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.launches import Launch, LaunchState

LAUNCH_ID = "00000000-0000-0000-0000-000000000001"
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20


@pytest.fixture
async def ready(api, alice, bob, chute_body):
    """Alice with a deployed chute, and Bob."""
    await api.register(alice, "alice")
    await api.register(bob, "robert")
    await api.upload(alice, "alice")
    answer = await api.signed(alice, "POST", "/chutes/", body=chute_body())
    assert answer.status_code == 200, answer.text
    api.chute = answer.json()
    return api


async def create(api, keypair, **changes):
    body = {"purpose": "embeddings", "key": "TOKEN", "value": "hf_very_secret", **changes}
    return await api.signed(keypair, "POST", "/secrets/", body=body)


async def test_a_secret_is_never_shown_again(ready, alice):
    """No answer holds the value, and the one of creation says what a miner can see."""
    made = await create(ready, alice)
    assert made.status_code == 200, made.text
    assert "miner" in made.json()["note"]
    path = f"/secrets/{made.json()['secret_id']}"
    listed = await ready.signed(alice, "GET", "/secrets/", purpose="secrets")
    read = await ready.signed(alice, "GET", path, purpose="secrets")
    assert listed.json()["items"] == [read.json()]
    for answer in (made, listed, read):
        assert "hf_very_secret" not in answer.text


async def test_a_secret_reaches_its_chute_alone(ready, alice):
    """What is handed to an instance is exactly its own chute's variables, in the clear."""
    await create(ready, alice)
    await create(ready, alice, purpose="later", key="OTHER")
    chute = ready.services.store.chutes.get(ready.chute["chute_id"])
    assert dict(ready.services.secrets.of_chute(chute)) == {"TOKEN": "hf_very_secret"}


async def test_a_secret_lies_sealed(ready, alice, tmp_path):
    """The value stands in no file of the store."""
    await create(ready, alice)
    assert ready.services.store.secrets.by_owner(ready.chute["user"]["user_id"])
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"hf_very_secret" not in file.read_bytes()


async def test_a_secret_may_come_before_its_chute(ready, alice):
    """A name that is not deployed yet is kept for the chute that will have it."""
    made = await create(ready, alice, purpose="Not/yet")
    assert made.json()["chute_id"] == ids.chute_id("alice", "Not/yet")


async def test_secrets_of_others_do_not_exist(ready, alice, bob):
    """Another user can neither read nor delete a secret, nor give one to a foreign chute."""
    path = f"/secrets/{(await create(ready, alice)).json()['secret_id']}"
    for method in ("GET", "DELETE"):
        answer = await ready.signed(bob, method, path, purpose="secrets")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_secret")
    answer = await create(ready, bob, purpose=ready.chute["chute_id"])
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_chute")


async def test_a_deleted_secret_is_gone(ready, alice):
    """After deletion it is not listed, and its key is free again."""
    path = f"/secrets/{(await create(ready, alice)).json()['secret_id']}"
    assert (await create(ready, alice)).json()["code"] == "secret_exists"
    assert (await ready.signed(alice, "DELETE", path, purpose="secrets")).status_code == 200
    assert (await create(ready, alice)).status_code == 200


@pytest.mark.parametrize("key", ["", "1A", "A-B", "LD_PRELOAD", "PYTHONPATH", "CHUTES_RUNNER_X"])
async def test_keys_that_steer_the_instance_are_refused(ready, alice, key):
    """Only names that the runner will set are kept."""
    answer = await create(ready, alice, key=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_secret_key")


async def test_secrets_of_a_chute_are_bounded(ready, alice):
    """A value, and all values of a chute together, have a limit; the value is in no error."""
    big = "x" * (rules.MAX_VALUE_BYTES + 1)
    answer = await create(ready, alice, value=big)
    assert answer.json()["code"] == "bad_secret_value"
    assert big not in answer.text
    fits = "x" * rules.MAX_VALUE_BYTES
    codes = [(await create(ready, alice, key=f"K{n}", value=fits)).json() for n in range(5)]
    assert codes[-1]["code"] == "too_many_secrets"


def test_the_runner_refuses_the_same_keys():
    """The rule told to developers is the runner's own."""
    assert rules.RESERVED == _RESERVED
    assert rules.RESERVED_PREFIXES == _RESERVED_PREFIXES


async def test_a_plain_key_makes_no_secret(ready, alice):
    """Secrets need the owner's signature or an admin key."""
    key = await ready.key(alice, scopes=[{"object_type": "chutes"}])
    answer = await ready.with_key(key, "GET", "/secrets/")
    assert (answer.status_code, answer.json()["code"]) == (403, "scope")


def called(api, user_id):
    call = Invocation(
        worker="w",
        sequence=1,
        invocation_id="call-1",
        user_id=user_id,
        key_id="k",
        chute_id=api.chute["chute_id"],
        launch_id=LAUNCH_ID,
        rate_id="r",
        rao_per_hour=1,
        hold_rao=1,
        free=False,
        started_at_us=1,
        usage_us=1,
        bytes_in=1,
        bytes_out=1,
        attempts=1,
        status=200,
        outcome="ok",
    )
    api.services.store.invocations.insert_many([call])


async def test_a_call_is_reported_once_by_its_caller(ready, alice, bob):
    """The caller's report is kept; a stranger's and a second one are refused."""
    called(ready, ready.chute["user"]["user_id"])
    body = {"reason": "nonsense"}
    answer = await ready.signed(bob, "POST", "/invocations/call-1/report", body=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_invocation")
    answer = await ready.signed(alice, "POST", "/invocations/call-1/report", body=body)
    assert answer.status_code == 200, answer.text
    assert "call-1" in answer.json()["status"]
    answer = await ready.signed(alice, "POST", "/invocations/call-1/report", body=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "reported_before")
    (report,) = ready.services.store.reports.of_chute(ready.chute["chute_id"])
    assert (report.reason, report.launch_id) == ("nonsense", LAUNCH_ID)


async def upload_logo(api, key, data):
    headers = {"Authorization": f"Bearer {key}"}
    files = {"logo": ("logo.png", data, "image/png")}
    return await api.http.post("/logos/", files=files, headers=headers)


async def test_a_logo_is_shown_beside_its_chute(ready, alice, chute_body):
    """An uploaded picture is served by its id, and the chute names it."""
    made = await upload_logo(ready, await ready.key(alice, admin=True), PNG)
    assert made.status_code == 200, made.text
    logo_id = made.json()["logo_id"]
    served = await ready.http.get(f"/logos/{logo_id}")
    assert (served.content, served.headers["content-type"]) == (PNG, "image/png")
    answer = await ready.signed(alice, "POST", "/chutes/", body=chute_body(logo_id=logo_id))
    assert answer.json()["logo_id"] == logo_id


async def test_a_logo_is_a_picture(ready, alice):
    """Scripts, and what only calls itself a picture, are refused."""
    key = await ready.key(alice, admin=True)
    for data in (b"<svg/>", b"", b"MZ"):
        answer = await upload_logo(ready, key, data)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_logo")


def launched(api):
    launch = Launch(
        launch_id=LAUNCH_ID,
        chute_id=api.chute["chute_id"],
        version=api.chute["version"],
        image_id=api.chute["image"]["image_id"],
        miner_hotkey="miner",
        miner_coldkey="cold",
        registered_at_block=1,
        node_id="n",
        gpu_uuids=("GPU-1",),
        gpu_class="l4",
        relay_host="127.0.0.1",
        relay_port=1,
        profile="test",
        stand_in=True,
        requested_at_s=1,
        deadline_s=9,
    )
    api.services.store.launches.insert(launch, b"k", b"t")


async def test_logs_come_line_by_line(ready, alice):
    """The owner reads the last whole lines of what the instance printed, as events."""
    launched(ready)
    ready.tails[:] = ["one\ntwo\nthr"]
    answer = await ready.signed(
        alice, "GET", f"/instances/{LAUNCH_ID}/logs?backfill=1&follow=false", purpose="logs"
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert events == [{"log": "two"}]


async def test_a_gone_instance_tells_why_it_ended(ready, alice):
    """The log of an instance that ended is its last words."""
    launched(ready)
    ready.services.store.launches.advance(
        LAUNCH_ID, LaunchState.REQUESTED, LaunchState.GONE, detail="boom", gone_at_s=9
    )
    answer = await ready.signed(alice, "GET", f"/instances/{LAUNCH_ID}/logs", purpose="logs")
    assert "boom" in answer.text


async def test_logs_are_the_owners(ready, bob):
    """Nobody else learns that an instance exists."""
    launched(ready)
    answer = await ready.signed(bob, "GET", f"/instances/{LAUNCH_ID}/logs", purpose="logs")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_instance")


async def test_a_quick_warm_up_answers_at_once(ready, alice):
    """With `quick` the state of this moment is told, and the asking counts as demand."""
    launched(ready)
    answer = await ready.signed(
        alice, "GET", "/chutes/warmup/embeddings?quick=true", purpose="chutes"
    )
    assert answer.json()["status"] == "requested"
    assert answer.json()["instances"][0]["gpu_model_name"] == "l4"
    assert ready.woken == [ready.chute["chute_id"]]
