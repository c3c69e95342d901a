"""Signed requests: checks in order, one code per reason, nothing accepted twice."""

import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import Unauthenticated
from chutes_core.wire.control import Handshake
from chutes_core.wire.discovery import WellKnown, commitment_of, url_of
from chutes_core.wire.lease import Lease
from chutes_core.wire.signing import (
    sign_reply,
    sign_request,
    sign_user,
    verify_reply,
    verify_request,
    verify_user,
)

ALICE = Keypair.create_from_uri("//Alice")
BOB = Keypair.create_from_uri("//Bob")
NOW_NS = 1_700_000_000 * 10**9


class Seen:
    def __init__(self):
        self.pairs = set()

    def check_and_store(self, hotkey, nonce, expires_s):
        if (hotkey, nonce) in self.pairs:
            return False
        self.pairs.add((hotkey, nonce))
        return True


def signed(**changes):
    call = {"method": "POST", "path": "/a?b=1", "body": b"x", "receiver_ss58": BOB.ss58_address}
    return sign_request(ALICE, **{**call, "nonce_ns": NOW_NS, **changes})


def verify(headers, nonces=None, now_ns=NOW_NS, **changes):
    call = {"method": "POST", "path": "/a?b=1", "self_hotkey_ss58": BOB.ss58_address}
    body = changes.pop("body", b"x")
    return verify_request(
        headers, body, **{**call, **changes}, nonces=nonces or Seen(), now_ns=now_ns
    )


def test_a_signed_request_names_its_caller():
    """An honest request passes."""
    assert verify(signed()).hotkey_ss58 == ALICE.ss58_address


def test_it_is_the_protocol_of_the_bittensor_sdk():
    """Both libraries accept what the other signed."""
    from bittensor import http_auth

    headers = http_auth.sign(
        ALICE,
        method="POST",
        path="/a?b=1",
        body=b"x",
        receiver_ss58=BOB.ss58_address,
        nonce_ns=NOW_NS,
    )
    assert verify(headers).hotkey_ss58 == ALICE.ss58_address
    caller = http_auth.verify(
        signed(),
        b"x",
        method="POST",
        path="/a?b=1",
        self_hotkey_ss58=BOB.ss58_address,
        now_ns=NOW_NS,
        nonce_store=http_auth.InMemoryNonceStore(),
    )
    assert caller.hotkey_ss58 == ALICE.ss58_address


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"body": b"y"}, "auth_bad_signature"),
        ({"method": "PUT"}, "auth_bad_signature"),
        ({"path": "/a?b=2"}, "auth_bad_signature"),
        ({"self_hotkey_ss58": ALICE.ss58_address}, "auth_wrong_receiver"),
        ({"now_ns": NOW_NS + 11 * 10**9}, "auth_stale"),
        ({"now_ns": NOW_NS - 3 * 10**9}, "auth_stale"),
    ],
)
def test_anything_altered_is_refused_with_its_code(changes, code):
    """Body, method, path, receiver and age are all checked."""
    with pytest.raises(Unauthenticated) as caught:
        verify(signed(), **changes)
    assert caught.value.code == code


def test_a_stale_request_is_told_the_servers_time():
    """The caller can measure its skew from the error."""
    with pytest.raises(Unauthenticated) as caught:
        verify(signed(), now_ns=NOW_NS + 60 * 10**9)
    assert caught.value.facts["server_time_s"] == 1_700_000_060


def test_a_request_is_accepted_once():
    """A replay inside the window is refused."""
    nonces = Seen()
    verify(signed(), nonces)
    with pytest.raises(Unauthenticated) as caught:
        verify(signed(), nonces)
    assert caught.value.code == "auth_replayed"


def test_a_forged_request_does_not_burn_the_nonce():
    """The replay store is written only after the signature verified."""
    nonces = Seen()
    with pytest.raises(Unauthenticated):
        verify(signed(), nonces, body=b"forged")
    verify(signed(), nonces)


@pytest.mark.parametrize("nonce", ["", "x", "1" * 30, "-5", "\u0661"])
def test_a_malformed_nonce_is_an_error_not_a_crash(nonce):
    """Odd nonces are refused as malformed."""
    with pytest.raises(Unauthenticated) as caught:
        verify({**signed(), "X-Bittensor-Nonce": nonce})
    assert caught.value.code == "auth_malformed"


def test_a_reply_is_bound_to_its_request():
    """A reply to another request, status or body does not verify."""
    headers = sign_reply(BOB, request_nonce="1", status=200, body=b"ok")
    good = {"request_nonce": "1", "status": 200, "peer_hotkey_ss58": BOB.ss58_address}
    verify_reply(headers, b"ok", **good)
    for changes in ({"request_nonce": "2"}, {"status": 201}):
        with pytest.raises(Unauthenticated):
            verify_reply(headers, b"ok", **{**good, **changes})
    with pytest.raises(Unauthenticated):
        verify_reply(headers, b"no", **good)


def test_the_public_form_signs_the_body_or_a_purpose():
    """Both shapes of the public client verify, and each is accepted once."""
    nonces = Seen()
    now_s = NOW_NS // 10**9
    for body, purpose in ((b"{}", "x"), (None, "me")):
        headers = sign_user(ALICE, body=body, purpose=purpose, nonce_s=now_s)
        kwargs = {"purpose": purpose, "target": "GET /a?", "nonces": nonces, "now_s": now_s}
        assert verify_user(headers, body, **kwargs).hotkey_ss58 == ALICE.ss58_address
        with pytest.raises(Unauthenticated) as caught:
            verify_user(headers, body, **kwargs)
        assert caught.value.code == "auth_replayed"


def test_a_purpose_signature_does_not_serve_another_purpose():
    """`me` is not `images`."""
    headers = sign_user(ALICE, body=None, purpose="me", nonce_s=NOW_NS // 10**9)
    proof = {"target": "GET /images/?", "nonces": Seen(), "now_s": NOW_NS // 10**9}
    with pytest.raises(Unauthenticated):
        verify_user(headers, None, purpose="images", **proof)


def test_two_calls_of_a_second_are_told_apart_by_what_they_ask_for():
    """Without a body the text is the same for a list and for a log; with one it cannot be."""
    nonces, now_s = Seen(), NOW_NS // 10**9

    def ask(target, body=None):
        headers = sign_user(ALICE, body=body, purpose="images", nonce_s=now_s)
        return verify_user(
            headers, body, purpose="images", target=target, nonces=nonces, now_s=now_s
        )

    for target in ("GET /images/?", "GET /images/?limit=1", "GET /images/a/logs?", "DELETE /a?"):
        ask(target)
        with pytest.raises(Unauthenticated, match="accepted once"):
            ask(target)
    ask("POST /a?", b"{}")
    with pytest.raises(Unauthenticated, match="accepted once"):
        ask("POST /b?", b"{}")


def lease(validator=BOB, first=10, last=20, gpu="GPU-1"):
    return Lease.sign(
        ALICE,
        gpu_uuid=gpu,
        validator_hotkey=validator.ss58_address,
        from_block=first,
        to_block=last,
    )


def test_leases_conflict_only_across_validators_and_blocks():
    """One GPU, two validators, a shared block: a conflict; anything less is none."""
    charlie = Keypair.create_from_uri("//Charlie")
    assert lease().conflicts_with(lease(charlie, 20, 30))
    assert not lease().conflicts_with(lease(charlie, 21, 30))
    assert not lease().conflicts_with(lease(BOB, 15, 30))
    assert not lease().conflicts_with(lease(charlie, 15, 30, "GPU-2"))


def test_a_lease_is_the_miners_word_alone():
    """Any changed field breaks the signature."""
    good = lease()
    good.check_signature()
    for changes in ({"to_block": 99}, {"gpu_uuid": "GPU-9"}, {"miner_hotkey": BOB.ss58_address}):
        with pytest.raises(Unauthenticated):
            good.model_copy(update=changes).check_signature()


def test_a_validators_description_is_bound_to_url_nonce_and_chain():
    """Discovery believes a signed answer for this nonce, URL, chain and subnet only."""
    known = WellKnown(
        handshake=Handshake(version="1"),
        hotkey=BOB.ss58_address,
        url="http://v",
        netuid=1,
        genesis_hash="0x1",
        nonce="n",
    ).signed(BOB)
    asked = {
        "hotkey_ss58": BOB.ss58_address,
        "url": "http://v",
        "nonce": "n",
        "genesis_hash": "0x1",
        "netuid": 1,
    }
    known.check(**asked)
    assert url_of(commitment_of("http://v")) == "http://v"
    assert url_of("something else") is None
    forged = known.model_copy(update={"handshake": Handshake(version="2")})
    with pytest.raises(Unauthenticated):
        forged.check(**asked)
