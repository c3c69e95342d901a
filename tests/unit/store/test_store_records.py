import pytest

from chutes_core.base.errors import Conflict, Invalid, NotFound, TooLarge
from chutes_core.validator.domain.chutes import Chute, Cord, Selector
from chutes_core.validator.domain.images import Image
from chutes_core.validator.store.images import Failure
from chutes_core.wire.lease import Lease


@pytest.fixture
def owner(store, new_account):
    return store.accounts.create(new_account)


@pytest.fixture
def new_chute(owner):
    def make(version="v1", **changes):
        fields = {
            "chute_id": "c1",
            "version": version,
            "user_id": owner.user_id,
            "username": owner.username,
            "name": "Name",
            "slug": "slug",
            "tagline": "",
            "readme": "",
            "public": False,
            "standard_template": None,
            "image_id": "i1",
            "filename": "f.py",
            "ref_str": "f:chute",
            "code": f"code of {version}",
            "selector": Selector(2, 24, 1_000_000, ("l4", "a10"), ("a40",)),
            "cords": (Cord("f", "/f", "POST", "/v1/f", "GET", True, False, {"a": [1]}),),
            "concurrency": 2,
            "max_instances": 3,
            "scaling_threshold_percent": 75,
            "shutdown_after_s": 300,
            "created_at_s": 1,
            "updated_at_s": 1,
            **changes,
        }
        return Chute(**fields)

    return make


def lease(gpu="GPU-1", validator="v1", from_block=10, to_block=20):
    return Lease(
        miner_hotkey="miner",
        gpu_uuid=gpu,
        validator_hotkey=validator,
        from_block=from_block,
        to_block=to_block,
        signature="00",
    )


def test_chute_round_trips_with_shares_and_versions(store, new_chute):
    """A chute comes back equal; a new version replaces it and the old one stays readable."""
    store.chutes.save(new_chute())
    assert store.chutes.get("c1") == new_chute()
    store.chutes.share("c1", "friend")
    store.chutes.share("c1", "friend")
    store.chutes.save(new_chute("v2", updated_at_s=2))
    current = store.chutes.by_name("user-1", "nAME")
    assert (current.version, current.shared_with) == ("v2", {"friend"})
    assert store.chutes.version("c1", "v1").code == "code of v1"
    assert [version.version for version in store.chutes.versions("c1")] == ["v1", "v2"]
    store.chutes.unshare("c1", "friend")
    assert store.chutes.by_slug("slug").shared_with == frozenset()


def test_deleted_chute_is_hidden_and_frees_its_slug(store, new_chute):
    """Live reads do not see it any more, and another chute may take the slug."""
    store.chutes.save(new_chute())
    with pytest.raises(Conflict):
        store.chutes.save(new_chute(chute_id="c2"))
    assert store.chutes.delete("c1", 9)
    assert not store.chutes.delete("c1", 9)
    assert store.chutes.get("c1") is None
    assert store.chutes.all_live() == ()
    assert store.chutes.get_any("c1").deleted_at_s == 9
    store.chutes.save(new_chute(chute_id="c2"))


def test_image_state_moves_by_compare_and_set(store, owner):
    """Two builders cannot take one image, and the log keeps its order."""
    image = Image("i1", owner.user_id, "user-1", "n", "t", "", True, "FROM x", "0", 1, "pending",
                  "", 1)  # fmt: skip
    store.images.insert(image)
    with pytest.raises(Conflict, match="image_exists"):
        store.images.insert(image)
    taken = store.images.advance("i1", "pending", "building", at_s=5)
    assert taken.build_started_at_s == 5
    with pytest.raises(Conflict):
        store.images.advance("i1", "pending", "building", at_s=6)
    store.images.append_log("i1", "stdout", "one")
    store.images.append_log("i1", "stderr", "two")
    assert [line.text for line in store.images.log("i1", after=0)] == ["one", "two"]
    assert [line.text for line in store.images.log("i1", after=1)] == ["two"]
    why = Failure("boom", "build_failed", "mend it")
    failed = store.images.advance("i1", "building", "error", at_s=7, failed=why)
    assert (failed.status, failed.build_completed_at_s) == ("error: boom", 7)
    assert (failed.error_code, failed.error_hint) == ("build_failed", "mend it")
    assert store.images.delete("i1")
    assert store.images.log("i1", after=0) == ()


def test_leases_of_two_validators_that_share_a_block_conflict(store):
    """A double lease is found from either side; neighbours and renewals are none."""
    mine = lease(validator="v1", from_block=10, to_block=20)
    renewal = lease(validator="v1", from_block=15, to_block=30)
    later = lease(validator="v2", from_block=31, to_block=40)
    for one in (mine, renewal, later):
        assert store.leases.upsert(one)
    assert not store.leases.upsert(mine)
    assert store.leases.conflicts(0, 100) == frozenset()
    double = lease(validator="v2", from_block=30, to_block=30)
    assert store.leases.conflicts_of(double) == (renewal,)
    store.leases.upsert(double)
    assert store.leases.conflicts(0, 100) == {("miner", "GPU-1")}
    assert store.leases.conflicts(0, 29) == frozenset()
    assert store.leases.of_gpu("miner", "GPU-1", 25) == (renewal, double, later)
    assert store.leases.page(31, after=None, miner_hotkey=None, limit=9) == (later,)
    assert store.leases.prune(31) == 3


def test_lease_with_an_absurd_block_is_refused(store):
    """A block number that no database can hold is a typed error."""
    with pytest.raises(Invalid):
        store.leases.upsert(lease().model_copy(update={"to_block": 2**70}))


def test_epoch_is_submitted_once(store):
    """An intent is needed before a result; after success the epoch is closed."""
    assert store.epochs.last_submitted_epoch() is None
    with pytest.raises(Conflict):
        store.epochs.record_failure(5, error="x")
    store.epochs.put_evidence(5, '{"a":1}')
    assert store.epochs.get(5) is None
    store.epochs.record_intent(5, {2: 10, 1: 20}, at_s=100)
    store.epochs.record_failure(5, error="pool full")
    assert store.epochs.get(5).error == "pool full"
    store.epochs.record_intent(5, {1: 20}, at_s=110)
    store.epochs.record_result(5, extrinsic_hash="0xaa", block_number=7, block_hash="0xbb")
    record = store.epochs.get(5)
    assert (record.weights, record.block_number, record.error) == (((1, 20),), 7, "")
    assert store.epochs.last_submitted_epoch() == store.epochs.last_intended_epoch() == 5
    assert store.epochs.evidence(5) == '{"a":1}'
    with pytest.raises(Conflict, match="epoch_done"):
        store.epochs.record_intent(5, {1: 1}, at_s=120)


def test_blob_is_named_by_its_hash(store):
    """A stream is stored under its SHA-256; equal bytes are one file."""
    blob = store.blobs.put([b"ab", b"c"], limit_bytes=3)
    assert blob.size_bytes == 3
    assert blob.sha256.startswith("ba7816bf")
    assert store.blobs.path(blob.sha256).read_bytes() == b"abc"
    assert store.blobs.put([b"abc"], limit_bytes=3) == blob
    store.blobs.delete(blob.sha256)
    with pytest.raises(NotFound):
        store.blobs.path(blob.sha256)


def test_blob_over_the_limit_leaves_nothing(store, tmp_path):
    """A stream that is too long is cut off and its file removed."""
    with pytest.raises(TooLarge):
        store.blobs.put([b"ab", b"cd"], limit_bytes=3)
    assert list((tmp_path / "data" / "blobs").iterdir()) == []


@pytest.mark.parametrize("name", ["../validator.db", "", "A" * 64, "/etc/passwd"])
def test_blob_names_lead_nowhere_else(store, name):
    """Only a digest is a name."""
    with pytest.raises(NotFound):
        store.blobs.path(name)
