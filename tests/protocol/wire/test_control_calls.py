"""The guard of signed control calls, called in process: who does not pass, and what is answered."""

import asyncio
import json
import threading

import pytest
from bittensor_core import Keypair

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Forbidden
from chutes_core.base.failures import MAX_FAILURES
from chutes_core.wire.neuron_http import SignedASGI
from chutes_core.wire.signing import sign_request, verify_reply

SERVER = Keypair.create_from_uri("//Server")
CALLER = Keypair.create_from_uri("//Caller")
STRANGER = Keypair.create_from_uri("//Stranger")


class Nonces:
    def __init__(self):
        self.seen = set()
        self.threads = set()

    def check_and_store(self, hotkey_ss58, nonce, expires_s):
        self.threads.add(threading.get_ident())
        new = (hotkey_ss58, nonce) not in self.seen
        self.seen.add((hotkey_ss58, nonce))
        return new


class Door:
    """The guard around an application that says ok."""

    def __init__(self, **options):
        self.clock = ManualClock()
        self.nonces = Nonces()
        self.guard = SignedASGI(
            self._app,
            keypair=SERVER,
            nonces=self.nonces,
            authorise=self._authorise,
            clock=self.clock,
            prefixes=("/guarded",),
            **options,
        )

    async def _authorise(self, hotkey):
        if hotkey != CALLER.ss58_address:
            raise Forbidden("no_permit", "no permit", hint="get one")

    async def _app(self, scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    def sign(self, body=b"", *, keypair=CALLER, path="/guarded", receiver=SERVER, age_s=0.0):
        nonce_ns = self.clock.now_us() * 1000 - round(age_s * 10**9)
        return sign_request(
            keypair,
            method="POST",
            path=path,
            body=body,
            receiver_ss58=receiver.ss58_address,
            nonce_ns=nonce_ns,
        )

    async def call(self, headers, *messages, path="/guarded"):
        """Return (status, code or body, headers)."""
        sent = []
        waiting = [*messages]

        async def receive():
            if not waiting:
                await asyncio.Event().wait()
            return waiting.pop(0)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(n.lower().encode(), v.encode()) for n, v in headers.items()],
            "client": ("192.0.2.1", 5),
        }
        await self.guard(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        answer = {n.decode(): v.decode() for n, v in sent[0]["headers"]}
        if sent[0]["status"] == 200:
            return 200, body.decode(), answer
        document = json.loads(body)
        assert set(document) == {"detail", "code", "hint"}
        return sent[0]["status"], document["code"], answer


def whole(body=b""):
    return {"type": "http.request", "body": body, "more_body": False}


async def test_nonces_are_not_looked_up_on_the_loop():
    """They are on disk, and the store may be busy: a thread waits, the loop does not."""
    door = Door()
    status, _, _ = await door.call(door.sign(b"x"), whole(b"x"))
    assert status == 200
    assert door.nonces.threads
    assert threading.get_ident() not in door.nonces.threads


async def test_a_signed_call_of_a_permitted_hotkey_passes():
    """The answer is signed over the request's nonce."""
    door = Door()
    headers = door.sign(b"x")
    status, body, answer = await door.call(headers, whole(b"x"))
    assert (status, body) == (200, "ok")
    verify_reply(
        answer,
        b"ok",
        request_nonce=headers["X-Bittensor-Nonce"],
        status=200,
        peer_hotkey_ss58=SERVER.ss58_address,
    )


@pytest.mark.parametrize(
    ("signed", "sent", "code"),
    [
        ({"age_s": 11}, b"", "auth_stale"),
        ({"age_s": -3}, b"", "auth_stale"),
        ({"receiver": STRANGER}, b"", "auth_wrong_receiver"),
        ({"path": "/guarded/other"}, b"", "auth_bad_signature"),
        ({}, b"changed", "auth_bad_signature"),
    ],
)
async def test_a_signature_over_something_else_is_401(signed, sent, code):
    """Stale, from the future, for another receiver or path, with another body."""
    door = Door()
    assert (await door.call(door.sign(**signed), whole(sent)))[:2] == (401, code)


async def test_a_call_is_accepted_once():
    """The same signed request again is 401."""
    door = Door()
    headers = door.sign()
    assert (await door.call(headers, whole()))[0] == 200
    assert (await door.call(headers, whole()))[:2] == (401, "auth_replayed")


async def test_a_hotkey_without_the_right_is_403_and_told_so_signed():
    """Authentication is not authorisation; the refusal carries the server's signature."""
    door = Door()
    status, code, answer = await door.call(door.sign(keypair=STRANGER), whole())
    assert (status, code) == (403, "no_permit")
    assert answer["x-chutes-reply-hotkey"] == SERVER.ss58_address


async def test_a_body_over_the_limit_is_413_before_anything_is_verified():
    """However the bytes come."""
    door = Door(max_body_bytes=10)
    piece = {"type": "http.request", "body": b"x" * 6, "more_body": True}
    assert (await door.call({}, piece, piece))[:2] == (413, "body_too_large")
    headers = door.sign(b"x" * 10)
    assert (await door.call(headers, whole(b"x" * 10)))[0] == 200


async def test_a_body_that_does_not_come_is_408():
    """A caller cannot hold a handler by sending nothing."""
    door = Door(body_timeout_s=0.02)
    piece = {"type": "http.request", "body": b"x", "more_body": True}
    assert (await door.call(door.sign(b"x"), piece))[:2] == (408, "body_timeout")


async def test_an_address_that_fails_too_often_is_429():
    """After MAX_FAILURES failures no signature from there is checked for a while."""
    door = Door()
    for _ in range(MAX_FAILURES):
        assert (await door.call({}, whole()))[:2] == (401, "auth_malformed")
    status, code, answer = await door.call(door.sign(), whole())
    assert (status, code) == (429, "too_many_failures")
    assert int(answer["retry-after"]) >= 1
    door.clock.advance(1)
    assert (await door.call(door.sign(), whole()))[0] == 200
