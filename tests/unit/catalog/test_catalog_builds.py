"""Builds that are stopped, postponed or done: what the catalogue keeps of them."""

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Unavailable
from chutes_core.validator.catalog.builder import Artefact, BuildStopped
from chutes_core.validator.catalog.image_rules import ImageDraft
from chutes_core.validator.catalog.images import MAX_TRIES, RETRY_S, Images
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.store.database import Store


class Scripted:
    """A builder that does what it is told."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.forgotten = []
        self.closed = False

    def build(self, image, log):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def forget(self, image):
        self.forgotten.append(image.image_id)

    def close(self):
        self.closed = True


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "v.db", clock=ManualClock())
    yield store
    store.close()


@pytest.fixture
def alice(store):
    return store.accounts.create(
        lambda n: Account("a", n, "alice", "h", "c", f"p{n}", f"d{n}", "0", 1)
    )


def made(images, alice):
    return images.create(alice, ImageDraft("alice", "app", "1", "", False, "FROM x\n", b""))


def test_what_was_built_is_kept_and_goes_with_the_image(store, alice):
    """Digest and archive stand in the record; a delete takes blob and engine's image along."""
    blob = store.blobs.put(iter([b"archive"]), limit_bytes=100)
    builder = Scripted(Artefact("sha256:x", blob.sha256, blob.size_bytes))
    images = Images(store, ManualClock(), builder)
    image = made(images, alice)
    images.build(image.image_id)
    kept = images.get(alice, "app:1")
    assert (kept.image_digest, kept.archive_sha256, kept.archive_bytes) == (
        "sha256:x",
        blob.sha256,
        7,
    )
    images.delete(alice, "app:1")
    assert builder.forgotten == [image.image_id]
    assert not (store.blobs._directory / blob.sha256).exists()


def test_a_stopped_build_is_pending_again(store, alice):
    """The validator's end is no fault of the image; nothing new begins after `close`."""
    builder = Scripted(BuildStopped())
    images = Images(store, ManualClock(), builder)
    image = made(images, alice)
    images.build(image.image_id)
    assert images.get(alice, "app:1").state == "pending"
    images.close()
    assert builder.closed
    images.build(image.image_id)
    assert images.get(alice, "app:1").state == "pending"


def test_an_engine_that_is_away_is_asked_again_later_but_not_for_ever(store, alice):
    """Each try waits, and the last one ends the build with the reason."""
    clock = ManualClock()
    images = Images(store, clock, Scripted(Unavailable("engine_unreachable", "no engine")))
    made(images, alice)
    for _ in range(MAX_TRIES):
        assert images.get(alice, "app:1").state == "pending"
        assert images.build_pending() == 1
        assert images.build_pending() == 0
        clock.advance(RETRY_S)
    assert images.get(alice, "app:1").status == "error: the validator cannot build now: no engine"
