"""Images and chutes without HTTP: builders that fail, restarts, fees, races."""

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import ChutesError
from chutes_core.validator.catalog.builder import BuildFailed, ProcessRuntimeBuilder
from chutes_core.validator.catalog.chutes import Chutes
from chutes_core.validator.catalog.image_rules import ImageDraft
from chutes_core.validator.catalog.images import Images
from chutes_core.validator.catalog.rules import ChuteDraft
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.chutes import Cord, Selector
from chutes_core.validator.domain.extras import Logo
from chutes_core.validator.domain.money import CHAIN_PAYMENTS, REVENUE, Entry, Posting
from chutes_core.validator.store.database import Store

CORD = Cord("f", "/f", "POST", None, None, False)
CHUTE = ChuteDraft("name", "app:1", "f.py", "f:chute", "x = 1", (CORD,), Selector())


class BrokenBuilder:
    def build(self, image, log):
        log("stdout", "starting")
        raise BuildFailed("no such base image")


def draft(tag="1"):
    return ImageDraft("alice", "app", tag, "", False, "FROM x\n", b"")


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


@pytest.fixture
def images(store):
    return Images(store, ManualClock(), ProcessRuntimeBuilder())


def test_failed_build_ends_as_an_error_with_its_reason(store, alice):
    """The developer reads the reason in status and log."""
    images = Images(store, ManualClock(), BrokenBuilder())
    image = images.create(alice, draft())
    images.build(image.image_id)
    assert images.get(alice, "app:1").status == "error: no such base image"
    lines = [line.text for line in images.log(image.image_id, after=0)]
    assert lines == ["starting", "no such base image"]


def test_build_that_a_dead_process_left_is_done_again(store, alice, images):
    """After a restart a build that was under way is pending and gets built."""
    image = images.create(alice, draft())
    store.images.advance(image.image_id, "pending", "building", at_s=1)
    images.build(image.image_id)
    assert images.get(alice, "app:1").state == "building"
    images.resume()
    assert images.build_pending() == 1
    assert images.get(alice, "app:1").state == "built"


def test_equal_bundles_are_one_file_until_the_last_image_is_gone(store, alice, images):
    """Deleting one of two equal images keeps the file of the other."""
    one, two = images.create(alice, draft("1")), images.create(alice, draft("2"))
    assert one.bundle_sha256 == two.bundle_sha256
    images.delete(alice, "app:1")
    assert store.blobs.path(two.bundle_sha256).is_file()
    images.delete(alice, "app:2")
    with pytest.raises(ChutesError, match="no_such_blob"):
        store.blobs.path(two.bundle_sha256)


def test_files_that_no_record_names_go_at_the_start(store, alice, images):
    """What a process left that died between file and record is removed; bundles and logos stay."""
    image = images.create(alice, draft())
    lost = store.blobs.put([b"lost"], limit_bytes=9)
    shown = store.blobs.put([b"shown"], limit_bytes=9)
    store.logos.insert(Logo("l", alice.user_id, shown.sha256, "image/png", 1))
    images.resume()
    assert set(store.blobs.all()) == {image.bundle_sha256, shown.sha256}
    with pytest.raises(ChutesError, match="no_such_blob"):
        store.blobs.path(lost.sha256)


def test_publishing_may_need_the_developer_role(store, alice):
    """Where the role is required, an account without it publishes and deploys nothing."""
    images = Images(store, ManualClock(), ProcessRuntimeBuilder(), require_developer=True)
    chutes = Chutes(store, ManualClock(), require_developer=True)
    with pytest.raises(ChutesError, match="not_developer"):
        images.create(alice, draft())
    with pytest.raises(ChutesError, match="not_developer"):
        chutes.deploy(alice, CHUTE, accept_fee=True)
    store.accounts.set_roles(alice.user_id, ["developer"])
    images.create(store.accounts.get(alice.user_id), draft())


def test_deploy_fee_is_shown_accepted_and_paid_once(store, alice, images):
    """A new chute costs its fee once accepted and covered; its next version costs nothing."""
    images.build(images.create(alice, draft()).image_id)
    chutes = Chutes(store, ManualClock(), fee_rao=lambda selector: 70)
    with pytest.raises(ChutesError, match="fee_not_accepted") as refused:
        chutes.deploy(alice, CHUTE, accept_fee=False)
    assert refused.value.facts == {"fee_rao": 70}
    with pytest.raises(ChutesError, match="insufficient_balance"):
        chutes.deploy(alice, CHUTE, accept_fee=True)
    assert store.chutes.all_live() == ()
    postings = (Posting(CHAIN_PAYMENTS, -100), Posting("user:a:credit", 100))
    store.ledger.apply(Entry("t", "payment", 1, postings))
    assert chutes.deploy(alice, CHUTE, accept_fee=True).fee_rao == 70
    assert chutes.deploy(alice, CHUTE, accept_fee=False).fee_rao == 0
    assert store.ledger.balance("user:a:credit") == 30
    assert store.ledger.balance(REVENUE) == 70


class Running:
    """A gateway whose running calls hold part of every purse."""

    def __init__(self, rao):
        self.rao = rao
        self.held = []

    def __call__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.ended_well = kind is None

    def hold(self, purse, rao):
        self.held.append((purse, rao))
        return self.rao

    def written(self, entry_id):
        self.entry_id = entry_id


def test_a_fee_leaves_what_running_calls_hold(store, alice, images):
    """What calls hold pays no fee; a fee is held from before it is taken until it is shown."""
    images.build(images.create(alice, draft()).image_id)
    postings = (Posting(CHAIN_PAYMENTS, -100), Posting("user:a:credit", 100))
    store.ledger.apply(Entry("t", "payment", 1, postings))
    running = Running(31)
    chutes = Chutes(store, ManualClock(), fee_rao=lambda selector: 70, spending=running)
    with pytest.raises(ChutesError, match="insufficient_balance"):
        chutes.deploy(alice, CHUTE, accept_fee=True)
    assert not running.ended_well
    running.rao = 30
    assert chutes.deploy(alice, CHUTE, accept_fee=True).fee_rao == 70
    assert running.held == [("a", 70)] * 2
    assert (running.ended_well, running.entry_id) == (True, store.ledger.last_entry_id())


def test_failed_deployment_charges_nothing(store, alice, images, monkeypatch):
    """Fee and chute are one transaction."""
    images.build(images.create(alice, draft()).image_id)
    postings = (Posting(CHAIN_PAYMENTS, -100), Posting("user:a:credit", 100))
    store.ledger.apply(Entry("t", "payment", 1, postings))

    def fail(chute):
        raise RuntimeError

    monkeypatch.setattr(store.chutes, "save", fail)
    with pytest.raises(RuntimeError):
        Chutes(store, ManualClock(), fee_rao=lambda s: 70).deploy(alice, CHUTE, accept_fee=True)
    assert store.ledger.balance("user:a:credit") == 100
