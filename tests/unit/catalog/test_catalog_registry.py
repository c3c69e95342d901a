"""Passes to a registry, its name, and what deleted images leave in it and in the engine."""

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Invalid, Unavailable
from chutes_core.validator.catalog.builder import Artefact
from chutes_core.validator.catalog.image_rules import ImageDraft
from chutes_core.validator.catalog.images import Images
from chutes_core.validator.catalog.registry import Place, Registry
from chutes_core.validator.catalog.registry_tokens import SERVICE, TOKEN_S, RegistryTokens
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.store.database import Store

NOW_S = 1_700_000_000
DIGEST = "sha256:" + "d" * 64
PLACE = Place.parse("registry.example.com:5000/chutes")
REFERENCE = f"registry.example.com:5000/chutes/an-image@{DIGEST}"


def opened(folder):
    return RegistryTokens.open(folder, issuer="5Fhotkey", now_s=NOW_S)


def read(token):
    """Return a pass's head and claims; its signature must be the certificate's in it."""
    head, claims, signature = token.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    documents = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, claims)]
    certificate = x509.load_der_x509_certificate(base64.b64decode(documents[0]["x5c"][0]))
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    certificate.public_key().verify(
        encode_dss_signature(r, s), f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256())
    )
    return documents


def test_a_pass_says_who_may_do_what_and_until_when(tmp_path):
    """One repository, one action, an hour; signed with the key of the certificate that it shows."""
    token = Registry(PLACE, opened(tmp_path), ManualClock(NOW_S)).pull_token(REFERENCE, "5Fminer")
    head, claims = read(token)
    assert (head["typ"], head["alg"]) == ("JWT", "ES256")
    assert claims["access"] == [
        {"type": "repository", "name": "chutes/an-image", "actions": ["pull"]}
    ]
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("5Fhotkey", SERVICE, "5Fminer")
    assert claims["exp"] == NOW_S + TOKEN_S
    assert claims["nbf"] < NOW_S
    assert len(token) < 4096


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    """A second start signs with the same key: the registry's operator copies a certificate once."""
    heads = [read(opened(tmp_path).mint("a", ("pull",), subject="m", now_s=NOW_S))[0]]
    heads.append(read(opened(tmp_path).mint("a", ("pull",), subject="m", now_s=NOW_S))[0])
    assert heads[0] == heads[1]
    assert (tmp_path / "registry-token.key").stat().st_mode & 0o777 == 0o600


def test_no_pass_is_granted_where_miners_have_passwords_or_the_registry_is_another(tmp_path):
    """The operator's own user never goes into a grant, and a former registry gets no pass."""
    tokens, clock = opened(tmp_path), ManualClock(NOW_S)
    own = Registry(PLACE, tokens, clock, user="u", password="p")
    assert own.pull_token(REFERENCE, "m") == ""
    moved = Registry(Place.parse("new.example.com"), tokens, clock)
    assert moved.pull_token(REFERENCE, "m") == ""
    assert moved.drop(REFERENCE)  # nothing is asked of a registry that is not ours any more


@pytest.mark.parametrize(
    "text", ["chutes", "https://r.example.com", "R.example.com", "r.example.com/", "r.io/a b", ":1"]
)
def test_what_names_no_registry_is_refused(text):
    """An engine would take a name without a dot for a path at its default registry."""
    with pytest.raises(Invalid, match="bad_registry"):
        Place.parse(text)


class Builder:
    """Pushes to nowhere; its engine may be away."""

    def __init__(self):
        self.away = False
        self.seen = []

    def build(self, image, log):
        return Artefact("sha256:x", registry_ref=REFERENCE)

    def forget(self, image):
        pass

    def sweep(self, holds):
        if self.away:
            raise Unavailable("engine_unreachable", "away")
        self.seen.append(holds("none"))
        return 1

    def close(self):
        pass


class Shelves:
    """A registry that may be away."""

    def __init__(self):
        self.away = False
        self.dropped = []

    def drop(self, reference):
        if self.away:
            raise Unavailable("registry_unreachable", "away")
        self.dropped.append(reference)
        return True


class Room:
    """A catalogue with one user."""

    def __init__(self, store):
        self.store, self.builder, self.shelves = store, Builder(), Shelves()
        self.images = Images(store, ManualClock(), self.builder, registry=self.shelves)
        self.alice = store.accounts.create(
            lambda n: Account("a", n, "alice", "h", "c", f"p{n}", f"d{n}", "0", 1)
        )

    def make(self):
        draft = ImageDraft("alice", "app", "1", "", False, "FROM x\n", b"")
        return self.images.create(self.alice, draft).image_id


@pytest.fixture
def room(tmp_path):
    store = Store(tmp_path / "v.db", clock=ManualClock())
    yield Room(store)
    store.close()


def test_a_deleted_image_leaves_its_registry_once_that_is_there(room):
    """What could not be removed is tried again, and once it is gone no more."""
    room.images.build(room.make())
    assert room.images.get(room.alice, "app:1").registry_ref == REFERENCE
    room.images.sweep()
    assert room.shelves.dropped == []
    room.images.delete(room.alice, "app:1")
    room.shelves.away = True
    with pytest.raises(Unavailable, match="registry_unreachable"):
        room.images.sweep()
    room.shelves.away = False
    assert room.images.sweep() == 2
    assert room.images.sweep() == 1  # the engine's
    assert room.shelves.dropped == [REFERENCE]


def test_an_image_that_is_there_again_keeps_what_it_names(room):
    """Deleted and sent again under the same name: nothing is removed, before or after its build."""
    room.images.build(room.make())
    room.images.delete(room.alice, "app:1")
    again = room.make()
    assert room.images.sweep() == 1
    assert room.store.images.left() != ()
    room.images.build(again)
    assert room.images.sweep() == 1
    assert (room.shelves.dropped, room.store.images.left()) == ([], ())


def test_an_image_deleted_while_it_was_pushed_leaves_nothing(room):
    """Its record went first; what the build brought there goes at the next look."""
    image_id = room.make()
    build = room.builder.build

    def build_late(image, log):
        room.images.delete(room.alice, "app:1")
        return build(image, log)

    room.builder.build = build_late
    room.images.build(image_id)
    room.images.sweep()
    assert room.shelves.dropped == [REFERENCE]


def test_an_engine_that_is_away_is_told_and_asked_again(room):
    """The loop notes the failure as a problem, and the next call sweeps."""
    room.builder.away = True
    with pytest.raises(Unavailable, match="engine_unreachable"):
        room.images.sweep()
    room.builder.away = False
    assert room.images.sweep() == 1
    assert room.builder.seen == [False]
