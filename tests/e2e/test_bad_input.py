"""Bad input against real processes: each case with its status, its code, and what to do about it.

One validator with small limits, one miner with two stand-in GPUs, two users: `moe` pays and owns
the chutes, `nix` has no credit.
"""

import contextlib
import dataclasses
import http.client
import io
import json
import pickle
import socket
import time
import zipfile
from pathlib import Path

import httpx
import pytest
from bittensor_core import Keypair

from chutes_core.base.units import RAO_PER_TAO
from chutes_core.validator.accounts.service import MAX_SCOPES
from chutes_core.validator.api.pages import MAX_LIMIT
from chutes_core.validator.api.routes import chutes as chutes_form
from chutes_core.validator.api.routes import images as images_form
from chutes_core.validator.api.routes.users import PER_ADDRESS
from chutes_core.validator.catalog.bundle import MAX_CONTEXT_BYTES, MAX_FILES
from chutes_core.validator.catalog.rules import MAX_CONCURRENCY, MAX_INSTANCES, MAX_README_BYTES
from chutes_core.wire.launch import MAX_CODE_BYTES
from chutes_core.wire.signing import sign_request, sign_user
from scripts.localnet import Localnet, miner_hotkey, wait_until
from scripts.localuser import LocalUser
from tests.e2e.patience import CALL_S, PATIENCE_S

CHUTES = Path(__file__).parent / "bad_chutes"
BURST = 120
MAX_BODY_BYTES = 64 * 1024
STRANGER = Keypair.create_from_uri("//Stranger")
VALIDATOR = Keypair.create_from_uri("//Validator1//hotkey")
CALLS = {"object_type": "chutes", "action": "invoke"}
UNKNOWN_KEY = f"cpk_{'0' * 32}.{'0' * 32}.{'a' * 32}"


@dataclasses.dataclass
class Scene:
    """Who and what the tests find."""

    mo: LocalUser
    nix: LocalUser
    chutes: dict[str, dict[str, object]]
    validator_hotkey: str
    miner_url: str
    miner_hotkey: str

    @property
    def url(self):
        return self.mo.url

    def ask(self, path, *, method="POST", user=None, key=None, url=None, **more):
        """Send one request, by default mo's POST of a JSON body."""
        headers = more.pop("headers", None)
        if headers is None:
            headers = {"Authorization": f"Bearer {key or (user or self.mo).api_key}"}
        if method == "POST" and not {"json", "content", "data"} & more.keys():
            more["json"] = {"text": "x"}
        return httpx.request(
            method, (url or self.url) + path, headers=headers, timeout=CALL_S, **more
        )

    def key(self, *options):
        """Make another key of mo's; return its record."""
        return self.mo.chutes("keys", "create", "--name", "other", *options)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with Localnet(tmp_path_factory.mktemp("bad"), block_seconds=0.5, tempo=40) as net:
        limits = {
            "COLD_WAIT_S": "2",
            "CALLS_PER_SECOND": "3",
            "CALLS_BURST": str(BURST),
            "MAX_BODY_BYTES": str(MAX_BODY_BYTES),
            "ROUND_ONE_IN": "0",  # no challenge takes the instance away while a test looks at it
            "LIGHT_SECONDS": "86400",
        }
        validator = net.start_validator(1, extra=limits)
        net.register_miner(1)
        miner = net.start_miner(1, extra={"DECLARE_GPU": "h100_sxm:2"})
        url = str(validator.ready["url"])
        mo, nix = LocalUser(net, url, "moe"), LocalUser(net, url, "nix")
        for user in (mo, nix):
            user.register()
            user.make_key()
        mo.pay(RAO_PER_TAO)
        mo.chutes("build", "moody:chute", "--wait", cwd=CHUTES)
        chutes = {
            name: mo.chutes("deploy", f"{name}:chute", *options, cwd=CHUTES)
            for name, options in (("moody", ["--public"]), ("broken", []), ("nobody", []))
        }
        mo.chutes("warmup", "moody")
        yield Scene(
            mo=mo,
            nix=nix,
            chutes=chutes,
            validator_hotkey=str(validator.ready["hotkey"]),
            miner_url=f"http://{miner.ready['axon']}",
            miner_hotkey=str(miner.ready["hotkey"]),
        )


def said(answer):
    """Check that an error has our form and says what to do; return its status and code."""
    document = answer.json()
    assert {"detail", "code", "hint"} <= set(document), document
    assert document["detail"], document
    assert document["hint"], document
    return answer.status_code, document["code"]


# Who is calling?


def forms_of(scene):
    """Return the four forms of an invocation, as paths."""
    return ("/c/moe-moody/say", f"/chutes/{scene.chutes['moody']['chute_id']}/say", "/v1/say")


def test_no_key_is_401(scene):
    """Without a key nothing of a chute is told, in each form and on the control plane."""
    for path in forms_of(scene):
        answer = scene.ask(path, headers={})
        assert said(answer) == (401, "no_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert said(scene.ask("/chutes/", method="GET", headers={})) == (401, "no_credentials")


@pytest.mark.parametrize("key", [UNKNOWN_KEY, "nonsense", "cpk_", "cpk_a.b.c", "\x80 ".strip()])
def test_an_unknown_or_malformed_key_is_401(scene, key):
    """They are not told apart."""
    headers = {"Authorization": f"Bearer {key}".encode("latin-1")}
    for path in forms_of(scene):
        assert said(scene.ask(path, headers=headers)) == (401, "bad_key")
    assert said(scene.ask("/chutes/", method="GET", headers=headers)) == (401, "bad_key")


def test_a_revoked_key_is_401_at_once(scene):
    """A deleted key is refused by the next call, without a wait."""
    key = scene.key("--admin")
    assert scene.ask("/c/moe-moody/say", key=key["secret_key"]).status_code == 200
    scene.mo.chutes("keys", "delete", str(key["api_key_id"]), "--yes")
    assert said(scene.ask("/c/moe-moody/say", key=key["secret_key"])) == (401, "bad_key")
    listed = scene.ask("/chutes/", method="GET", key=key["secret_key"])
    assert said(listed) == (401, "bad_key")


def test_a_key_outside_its_scopes_is_403(scene):
    """A key for images calls no chute; one for a chute calls no other and manages nothing."""
    images = str(scene.key("--images")["secret_key"])
    assert said(scene.ask("/c/moe-moody/say", key=images)) == (403, "scope")
    other = str(scene.chutes["nobody"]["chute_id"])
    narrow = str(scene.key("--chute-ids", other)["secret_key"])
    assert said(scene.ask("/c/moe-moody/say", key=narrow)) == (403, "scope")
    assert said(scene.ask("/api_keys/", method="GET", key=narrow)) == (403, "scope")
    assert said(scene.ask("/users/me", method="GET", key=narrow)) == (403, "scope")


def test_without_credit_a_call_is_402(scene):
    """The caller is told what a call needs, and where to find the address to pay to."""
    answer = scene.ask("/c/moe-moody/say", user=scene.nix)
    assert said(answer) == (402, "insufficient_balance")
    assert "payment address" in answer.json()["hint"]


# What is called?


def test_a_chute_that_is_not_there_or_not_shared_is_404(scene):
    """The two are not told apart, by slug, by id, by model and on the control plane."""
    strange = "00000000-0000-4000-8000-000000000000"
    private = scene.chutes["nobody"]
    seen = []
    for slug, chute_id, model in (
        ("moe-nothing", strange, "moe/nothing"),
        (private["slug"], private["chute_id"], "moe/nobody"),
    ):
        answers = [
            scene.ask(f"/c/{slug}/say", user=scene.nix),
            scene.ask(f"/chutes/{chute_id}/say", user=scene.nix),
            scene.ask("/v1/say", user=scene.nix, json={"model": model}),
        ]
        assert [said(answer) for answer in answers] == [(404, "chute_not_found")] * 3
        seen.append([answer.json() for answer in answers])
        read = scene.ask(f"/chutes/{chute_id}", method="GET", user=scene.nix)
        assert said(read) == (404, "no_such_chute")
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nothing/here", (404, "no_such_path")),
        ("PUT", "/users/me", (405, "wrong_method")),
        ("POST", "/c/moe-moody/nothing", (404, "cord_not_found")),
        ("GET", "/c/moe-moody/say", (404, "cord_not_found")),
        ("DELETE", "/c/moe-moody/say", (404, "cord_not_found")),
        ("POST", "/c/", (404, "chute_not_found")),
        ("POST", "/v1/chat/completions", (422, "no_model")),
        ("GET", "/images/00000000-0000-4000-8000-000000000000", (404, "no_such_image")),
        ("GET", "/api_keys/nothing", (404, "no_such_key")),
        ("GET", f"/users/me/statement?limit={MAX_LIMIT + 1}", (422, "bad_request")),
        ("GET", "/leases?after=x", (422, "bad_cursor")),
        ("GET", "/evidence/x", (422, "bad_request")),
        ("GET", "/.well-known/chutes?nonce=short", (422, "bad_request")),
    ],
)
def test_a_wrong_path_or_method_is_said(scene, method, path, expected):
    """On the control plane 404 and 405; at a chute the answer lists what it serves."""
    assert said(scene.ask(path, method=method)) == expected


# What is sent?


@pytest.mark.parametrize("body", [{}, {"text": 3}, {"text": "x", "more": 1}, [], "x", None])
def test_a_body_against_the_schema_is_422(scene, body):
    """The chute itself says so, through the sealed path, with the fields that are wrong."""
    answer = scene.ask("/c/moe-moody/say", content=json.dumps(body).encode())
    assert said(answer) == (422, "invalid_input")
    assert answer.json()["fields"]
    assert answer.headers["X-Chutes-InvocationID"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"text": "\\ud800"}'])
def test_what_is_no_json_is_422(scene, content):
    """Broken JSON, other bytes, half a character."""
    assert said(scene.ask("/c/moe-moody/say", content=content)) == (422, "invalid_input")


def test_too_large_a_body_is_413(scene):
    """By its announced length, and by what really comes without one."""
    large = b"x" * (MAX_BODY_BYTES + 1)
    for path in forms_of(scene):
        assert said(scene.ask(path, content=large)) == (413, "body_too_large")
        pieces = (large[at : at + 16_384] for at in range(0, len(large), 16_384))
        assert said(scene.ask(path, content=pieces)) == (413, "body_too_large")
    keys = scene.ask("/api_keys/", content=b"x" * (64 * 1024 + 1))
    assert said(keys) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (pickle.dumps(("x",)), "application/octet-stream", "pickled_arguments"),
        (pickle.dumps(("x",)), "application/json", "pickled_arguments"),
        (b'{"args": "gASVAA==", "kwargs": "gASVAA=="}', "application/json", "pickled_arguments"),
        (b"text=x", "application/x-www-form-urlencoded", "unsupported_media_type"),
    ],
)
def test_a_pickled_call_is_415(scene, content, kind, code):
    """What the public SDK pickles is refused, and the answer says what to send in its place."""
    headers = {**scene.mo.headers, "Content-Type": kind}
    path = f"/chutes/{scene.chutes['moody']['chute_id']}/say"
    assert said(scene.ask(path, content=content, headers=headers)) == (415, code)


def cord(name):
    return {"function": "f", "path": f"/{name}"}


def chute_form(**changes):
    form = {"name": "x", "image": "plain:1", "filename": "f.py", "ref_str": "f:chute", "code": "1"}
    return {**form, "cords": [cord("f")], **changes}


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/chutes/", chute_form(name="a\x00b"), "bad_chute_name"),
        ("/chutes/", chute_form(name="a\n"), "bad_chute_name"),
        ("/chutes/", chute_form(name="\x1b[31mred"), "bad_chute_name"),
        ("/chutes/", chute_form(name="../up"), "bad_chute_name"),
        ("/chutes/", chute_form(filename="f\x00.py"), "bad_filename"),
        ("/chutes/", chute_form(tagline="a\x1b[2Jb"), "bad_request"),
        ("/chutes/", chute_form(cords=[{"function": "f", "path": "/a\r\nb"}]), "bad_cord"),
        ("/chutes/", chute_form(cords=[]), "no_cords"),
        ("/chutes/", chute_form(cords=[cord(n) for n in range(65)]), "too_many_cords"),
        ("/chutes/", chute_form(cords=[cord("a" * 200)]), "bad_request"),
        ("/chutes/", chute_form(concurrency=MAX_CONCURRENCY + 1), "out_of_range"),
        ("/chutes/", chute_form(max_instances=MAX_INSTANCES + 1), "out_of_range"),
        ("/chutes/", {"name": "x"}, "bad_request"),
        ("/api_keys/", {"name": "a\x1b[31mb", "admin": True}, "bad_request"),
        ("/api_keys/", {"name": "a" * 65, "admin": True}, "bad_request"),
        ("/api_keys/", {"name": "a", "admin": False}, "no_scopes"),
        ("/api_keys/", {"name": "a", "scopes": [CALLS] * (MAX_SCOPES + 1)}, "bad_request"),
    ],
)
def test_control_characters_and_other_bad_values_are_422(scene, path, body, code):
    """A name that could deceive a terminal, a log or a path, and figures out of their range."""
    assert said(scene.ask(path, json=body)) == (422, code)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"readme": "x" * (MAX_README_BYTES + 1)}, "readme_too_large"),
        ({"code": "x" * (MAX_CODE_BYTES + 1)}, "code_too_large"),
        (
            {"cords": [{"function": "f", "path": "/f", "input_schema": {"x": "y" * 300_000}}]},
            "schemas_too_large",
        ),
    ],
)
def test_a_part_of_a_chute_over_its_bound_is_413(scene, changes, code):
    """Readme, code and schemas are bounded each, whatever the whole form may hold."""
    assert said(scene.ask("/chutes/", json=chute_form(**changes))) == (413, code)


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/chutes/", chutes_form.MAX_BODY_BYTES), ("/images/", images_form.MAX_BODY_BYTES)],
)
def test_a_form_over_its_bound_is_413(scene, path, limit):
    """By its announced length, before any of it is sent; the largest is awaited."""
    assert raw_said(raw(scene.url, begun_form(scene, path, limit + 1))) == (
        413,
        "body_too_large",
    )
    with started(scene.url, begun_form(scene, path, limit)) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_chutes_form_that_grows_over_its_bound_is_413(scene):
    """Also where no length was announced."""
    piece = b"x" * 65_536
    pieces = (piece for _ in range(chutes_form.MAX_BODY_BYTES // len(piece) + 1))
    assert said(scene.ask("/chutes/", content=pieces)) == (413, "body_too_large")


def image_form(scene, context):
    """POST an image whose context is these bytes."""
    fields = {"username": "moe", "name": "big", "tag": "1", "dockerfile": "FROM a/b:1\n"}
    return scene.ask("/images/", data=fields, files={"build_context": context})


def test_too_large_a_context_is_413(scene):
    """Zipped, by one byte."""
    answer = image_form(scene, b"x" * (MAX_CONTEXT_BYTES + 1))
    assert said(answer) == (413, "context_too_large")


def test_too_many_files_in_a_context_are_422(scene):
    """However small they are."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(MAX_FILES + 1):
            archive.writestr(str(number), "")
    answer = image_form(scene, packed.getvalue())
    assert said(answer) == (422, "unsafe_zip")
    assert str(MAX_FILES) in answer.json()["detail"]


def test_too_many_uploads_at_once_are_429(scene):
    """One user's next is told when to come back; its place is there once another has left."""

    def tried():
        return image_form(scene, b"no zip")

    with contextlib.ExitStack() as stack:
        for _ in range(images_form.MAX_UPLOADS_OF_ONE):
            stack.enter_context(started(scene.url, begun_form(scene, "/images/", 1000)))
        wait_until(lambda: tried().status_code == 429, PATIENCE_S, "all places of one to be taken")
        answer = tried()
        assert said(answer) == (429, "uploads_busy")
        assert int(answer.headers["Retry-After"]) >= 1
    wait_until(lambda: tried().status_code != 429, PATIENCE_S, "a place to be free")


@pytest.mark.parametrize("username", ["a\nb", "a\x00", "UPPER", "a" * 200, ""])
def test_a_bad_username_is_422(scene, username):
    """At registration, before anything is made."""
    body = json.dumps({"username": username, "coldkey": STRANGER.ss58_address}).encode()
    headers = signed_user(STRANGER, body)
    answer = scene.ask("/users/register", content=body, headers=headers)
    assert said(answer) in ((422, "bad_username"), (422, "bad_request"), (429, "x"))


def test_too_many_registrations_of_an_address_are_429(scene):
    """Counted before the signature is looked at; other addresses are not slowed down."""
    transport = httpx.HTTPTransport(local_address="127.0.0.77")
    with httpx.Client(transport=transport, timeout=CALL_S) as client:
        for _ in range(PER_ADDRESS["burst"]):
            assert said(client.post(scene.url + "/users/register", json={}))[0] == 401
        for _ in range(PER_ADDRESS["burst"]):  # one more may pass at each refill
            answer = client.post(scene.url + "/users/register", json={})
            if answer.status_code == 429:
                break
    assert said(answer) == (429, "too_many_registrations")
    assert int(answer.headers["Retry-After"]) >= 1
    assert scene.ask("/users/register", headers={}).status_code == 401


# Is there room?


def test_no_instance_in_time_is_503_with_the_reason(scene):
    """A caller of a chute that nobody can serve waits its time and hears why."""
    begun = time.monotonic()
    answer = scene.ask("/c/moe-nobody/say")
    assert said(answer) == (503, "no_instance")
    assert "no miner with fitting GPUs" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert 1.5 < time.monotonic() - begun < 45  # not the 60 s of who sets nothing


def test_a_full_instance_is_429_with_retry_after(scene):
    """One call runs, as many as the chute takes; the next is told when to come back."""
    with httpx.stream(
        "POST", scene.url + "/c/moe-moody/long", json={}, headers=scene.mo.headers, timeout=CALL_S
    ) as running:
        chunks = running.iter_text()  # kept: the call ends with its reader
        assert next(chunks) == "begun"
        answer = scene.ask("/c/moe-moody/say")
        assert said(answer) == (429, "at_capacity")
        assert int(answer.headers["Retry-After"]) >= 1
    answers = lambda: scene.ask("/c/moe-moody/say").status_code == 200  # noqa: E731 - short
    wait_until(answers, PATIENCE_S, "the slot to be free")


def test_a_key_that_calls_too_often_is_429(scene):
    """The bucket of one key empties; another key of the same user is not slowed down."""
    key = str(scene.key("--admin")["secret_key"])
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=CALL_S) as client:
        for _ in range(4 * BURST):
            answer = client.get(scene.url + "/v1/models")
            if answer.status_code != 200:
                break
    assert said(answer) == (429, "rate_limited")
    assert int(answer.headers["Retry-After"]) >= 1
    assert scene.ask("/v1/models", method="GET").status_code == 200


# What the chute does wrong


def test_a_cord_that_raises_is_500_and_costs_nothing(scene):
    """The caller learns that the chute failed, not how; only a good call is charged."""
    bad = scene.ask("/c/moe-moody/fail", json={})
    assert said(bad) == (500, "cord_failed")
    assert "out of luck" not in bad.text
    good = scene.ask("/c/moe-moody/say")
    assert good.status_code == 200
    paid = good.headers["X-Chutes-InvocationID"]
    wait_until(lambda: paid in dict(scene.mo.charges()), PATIENCE_S, "the good call to be settled")
    assert bad.headers["X-Chutes-InvocationID"] not in dict(scene.mo.charges())


def test_a_chute_that_does_not_start_tells_its_developer_why(scene):
    """The last line of the traceback is in what `chutes warmup` shows; callers hear less."""

    def told():
        with httpx.stream(
            "GET",
            scene.url + "/chutes/warmup/broken",
            headers=scene.mo.headers,
            timeout=CALL_S,
        ) as lines:
            for line in lines.iter_lines():
                if "start" in line and "the weights are not there" in line:
                    return line
        return ""

    assert "FileNotFoundError: the weights are not there" in told()
    answer = scene.ask("/c/moe-broken/say", json={})
    assert answer.status_code == 503
    assert said(answer)[1] == "no_instance"
    assert "weights" not in answer.text


# Signed requests


def signed_user(keypair, body=None, purpose="me", age_s=0):
    """Return the headers of the public form."""
    nonce_s = int(time.time()) - age_s
    return sign_user(keypair, body=body, purpose=purpose, nonce_s=nonce_s)


def test_the_public_form_is_checked(scene):
    """Stale, from the future, tampered, for another purpose, of a stranger, twice: each is 401."""
    mo = scene.mo.hotkey

    def me(headers, **more):
        return said(scene.ask("/users/me", method="GET", headers=headers, **more))

    assert me(signed_user(mo, age_s=3600)) == (401, "auth_stale")
    assert me(signed_user(mo, age_s=-3600)) == (401, "auth_stale")
    assert me(signed_user(mo, purpose="chutes")) == (401, "auth_bad_signature")
    other = {**signed_user(mo), "X-Chutes-Hotkey": STRANGER.ss58_address}
    assert me(other) == (401, "auth_bad_signature")
    assert me({**signed_user(mo), "X-Chutes-Signature": "zz"}) == (401, "auth_malformed")
    assert me({"X-Chutes-Signature": "00" * 64}) == (401, "auth_malformed")
    assert me(signed_user(STRANGER))[0] == 401
    once = signed_user(mo, age_s=2)
    assert scene.ask("/users/me", method="GET", headers=once).status_code == 200
    assert me(once) == (401, "auth_replayed")
    body = json.dumps({"name": "k", "admin": True}).encode()
    tampered = body.replace(b'"k"', b'"l"')
    answer = scene.ask("/api_keys/", content=tampered, headers=signed_user(mo, body))
    assert said(answer) == (401, "auth_bad_signature")


@pytest.mark.parametrize("door", ["validator", "miner"])
def test_control_calls_are_checked(scene, door):
    """Unsigned, stale, mis-addressed, tampered, replayed: 401 at the validator and at the miner."""
    if door == "validator":
        url, path = scene.url, "/miner/wanted"
        caller, receiver, other = miner_hotkey(1), scene.validator_hotkey, scene.miner_hotkey
    else:
        url, path = scene.miner_url, "/inventory"
        caller, receiver, other = VALIDATOR, scene.miner_hotkey, scene.validator_hotkey

    def signed(*, age_s=0.0, to=receiver, signed_path=path, keypair=caller):
        return sign_request(
            keypair,
            method="GET",
            path=signed_path,
            body=b"",
            receiver_ss58=to,
            nonce_ns=time.time_ns() - round(age_s * 10**9),
        )

    def ask(headers, at=path):
        return scene.ask(at, method="GET", url=url, headers=headers)

    assert said(ask({})) == (401, "auth_malformed")
    assert said(ask(signed(age_s=60))) == (401, "auth_stale")
    assert said(ask(signed(age_s=-60))) == (401, "auth_stale")
    assert said(ask(signed(to=other))) == (401, "auth_wrong_receiver")
    assert said(ask(signed(signed_path="/miner/launches"))) == (401, "auth_bad_signature")
    assert said(ask(signed(), at=path + "?more=1")) == (401, "auth_bad_signature")
    stolen = {**signed(), "X-Bittensor-Hotkey": STRANGER.ss58_address}
    assert said(ask(stolen)) == (401, "auth_bad_signature")
    once = signed()
    assert ask(once).status_code == 200
    assert said(ask(once)) == (401, "auth_replayed")
    code = "not_registered"
    assert said(ask(signed(keypair=STRANGER))) == (403, code)


def test_a_control_call_with_a_bad_body_is_an_error(scene):
    """Too large 413, against the schema 422, of an unknown launch 404; all after a signature."""

    def post(path, body):
        headers = sign_request(
            miner_hotkey(1),
            method="POST",
            path=path,
            body=body,
            receiver_ss58=scene.validator_hotkey,
            nonce_ns=time.time_ns(),
        )
        return scene.ask(path, content=body, headers=headers)

    assert said(post("/miner/launches", b"x" * (1024 * 1024 + 1))) == (413, "body_too_large")
    assert said(post("/miner/launches", b"{}")) == (422, "bad_request")
    event = json.dumps({"event": "listening"}).encode()
    strange = post("/miner/launches/00000000-0000-4000-8000-000000000000/events", event)
    assert strange.status_code in (404, 422)
    assert said(strange)[1] in ("no_such_launch", "bad_request")


# What is hardly HTTP


def raw(url, data):
    """Send bytes and return all that comes until the server closes; never without end."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=CALL_S) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


@contextlib.contextmanager
def started(url, data):
    """Send the beginning of a request, and keep its connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=CALL_S) as connection:
        connection.sendall(data)
        yield connection


def begun_form(scene, path, length):
    """Return the head of a POST that announces so many bytes of a form."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {scene.mo.api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def raw_said(answer):
    """Return status and code of a raw answer in our form."""
    head, _, body = answer.partition(b"\r\n\r\n")
    document = json.loads(body)
    assert document["detail"]
    assert document["hint"]
    return int(head.split()[1]), document["code"]


LINE = b"POST /c/moe-moody/say HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("door", ["validator", "miner"])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (LINE + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (LINE + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (LINE.replace(b"\r", b"") + b"\n", 400),
        (LINE + b"A: b\x00c\r\n\r\n", 400),
        (LINE + b"A: b\rc\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (LINE + b"A: " + b"x" * (200 * 1024) + b"\r\n\r\n", 431),
        (LINE + b"A: b\r\n" * 300 + b"\r\n", 431),
        (b"GET /" + b"a" * (200 * 1024) + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    ],
)
def test_what_is_hardly_http_is_an_error_and_a_close(scene, door, data, expected):
    """Two lengths, bare line feeds, control characters, TLS, endless heads: never a hang."""
    url = scene.url if door == "validator" else scene.miner_url
    status, code = raw_said(raw(url, data))
    assert (status, code) == (expected, {400: "malformed_http", 431: "head_too_large"}[expected])


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({f"a-{number}": "b" for number in range(120)}, "", (431, "too_many_headers")),
        ({"a": "b" * 70_000}, "", (431, "too_many_headers")),
        ({}, "?q=" + "a" * 9000, (414, "uri_too_long")),
    ],
)
def test_too_much_for_a_chute_is_said_by_the_gateway(scene, headers, query, expected):
    """What HTTP allows, but no sealed call can carry."""
    answer = scene.ask("/c/moe-moody/say" + query, headers={**scene.mo.headers, **headers})
    assert said(answer) == expected


def test_a_request_cut_in_its_body_disturbs_nobody(scene):
    """The caller hangs up in the middle; the chute takes the next call."""
    host = scene.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=CALL_S)
    connection.putrequest("POST", "/c/moe-moody/say")
    connection.putheader("Authorization", f"Bearer {scene.mo.api_key}")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b'{"te')
    connection.close()
    wait_until(lambda: scene.ask("/c/moe-moody/say").status_code == 200, 60, "the slot to be free")
