from dataclasses import replace

import pytest

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.launches import LaunchState, Reason
from chutes_core.validator.domain.verdicts import GpuVerdict, Proof

LADDER = [
    LaunchState.REQUESTED,
    LaunchState.LISTENING,
    LaunchState.CHALLENGED,
    LaunchState.VERIFIED,
    LaunchState.STARTING,
    LaunchState.ACTIVE,
]


def climb(store, launch_id, active_at_s):
    for before, after in zip(LADDER, LADDER[1:]):  # noqa: B905, RUF007
        changes = {"active_at_s": active_at_s} if after is LaunchState.ACTIVE else {}
        store.launches.advance(launch_id, before, after, **changes)


def end(store, launch_id, state, at_s):
    return store.launches.advance(
        launch_id, state, LaunchState.GONE, gone_at_s=at_s, reason=Reason.MINER_ENDED
    )


def test_launch_round_trips_with_its_secrets_apart(store, new_launch):
    """The record comes back equal; sealed secrets are asked for by name."""
    launch = new_launch()
    store.launches.insert(launch, b"key", b"ticket")
    assert store.launches.get("launch-1") == launch
    secrets = store.launches.secrets("launch-1")
    assert (secrets.private_key, secrets.ticket, secrets.root) == (b"key", b"ticket", None)
    assert "key" not in repr(secrets).replace("private_key", "")
    store.launches.set_root("launch-1", b"root")
    assert store.launches.secrets("launch-1").root == b"root"


def test_advance_is_compare_and_set_along_the_table(store, new_launch):
    """A second step from the same state and a step outside the table are conflicts."""
    store.launches.insert(new_launch(), b"", b"")
    moved = store.launches.advance(
        "launch-1",
        LaunchState.REQUESTED,
        LaunchState.LISTENING,
        instance_public_key="ff",
        deadline_s=300,
    )
    assert (moved.state, moved.instance_public_key, moved.deadline_s) == (
        LaunchState.LISTENING,
        "ff",
        300,
    )
    with pytest.raises(Conflict, match="launch_moved"):
        store.launches.advance("launch-1", LaunchState.REQUESTED, LaunchState.LISTENING)
    with pytest.raises(Conflict, match="bad_transition"):
        store.launches.advance("launch-1", LaunchState.LISTENING, LaunchState.ACTIVE)
    with pytest.raises(Conflict, match="launch_moved"):
        store.launches.advance("nothing", LaunchState.REQUESTED, LaunchState.LISTENING)
    assert store.launches.get("launch-1") == moved


def test_identity_of_a_launch_never_changes(store, new_launch):
    """Who a launch belongs to is no field that a step may change."""
    store.launches.insert(new_launch(), b"", b"")
    with pytest.raises(TypeError):
        store.launches.advance(
            "launch-1", LaunchState.REQUESTED, LaunchState.LISTENING, miner_hotkey="eve"
        )
    assert store.launches.get("launch-1").state is LaunchState.REQUESTED


def test_update_needs_the_state_it_believes_in(store, new_launch):
    """A renewal of a launch that has moved on is a conflict."""
    store.launches.insert(new_launch(), b"", b"")
    renewed = store.launches.update("launch-1", LaunchState.REQUESTED, lease_until_s=900)
    assert renewed.lease_until_s == 900
    with pytest.raises(Conflict):
        store.launches.update("launch-1", LaunchState.ACTIVE, lease_until_s=901)


def test_gpu_stands_in_one_open_launch(store, new_launch):
    """A GPU of a miner is busy until its launch is gone; another miner's uuid is another GPU."""
    store.launches.insert(new_launch(1), b"", b"")
    twin = new_launch(2, gpu_uuids=("GPU-9", "GPU-1a"))
    with pytest.raises(Conflict, match="gpu_busy"):
        store.launches.insert(twin, b"", b"")
    assert store.launches.get("launch-2") is None
    assert store.launches.busy_gpus("miner") == {"GPU-1a": "launch-1", "GPU-1b": "launch-1"}
    store.launches.insert(replace(twin, miner_hotkey="other"), b"", b"")
    end(store, "launch-1", LaunchState.REQUESTED, 150)
    assert store.launches.busy_gpus("miner") == {}


def test_gone_launch_keeps_no_key_and_no_root(store, new_launch):
    """Key and root are erased at the end, and a root that comes late is refused."""
    store.launches.insert(new_launch(), b"key", b"ticket")
    store.launches.set_root("launch-1", b"root")
    gone = end(store, "launch-1", LaunchState.REQUESTED, 150)
    assert (gone.reason, gone.gone_at_s) == (Reason.MINER_ENDED, 150)
    secrets = store.launches.secrets("launch-1")
    assert (secrets.private_key, secrets.root) == (b"", None)
    with pytest.raises(Conflict):
        store.launches.set_root("launch-1", b"late")


def test_open_and_recently_gone_launches_are_listed(store, new_launch):
    """A miner sees its open launches and those that ended since a time."""
    for number in (1, 2, 3):
        store.launches.insert(new_launch(number, requested_at_s=number), b"", b"")
    end(store, "launch-1", LaunchState.REQUESTED, 150)
    end(store, "launch-2", LaunchState.REQUESTED, 250)
    assert [x.launch_id for x in store.launches.open()] == ["launch-3"]
    assert [x.launch_id for x in store.launches.open_of_chute("chute")] == ["launch-3"]
    listed = store.launches.by_miner("miner", 200)
    assert [x.launch_id for x in listed] == ["launch-2", "launch-3"]
    assert store.launches.by_miner("other", 0) == ()


def test_active_spans_are_clipped_to_the_window(store, new_launch):
    """Only active time inside the window counts, draining included, and nothing else."""
    for number in (1, 2, 3, 4):
        store.launches.insert(new_launch(number), b"", b"")
    climb(store, "launch-1", 100)
    climb(store, "launch-2", 120)
    store.launches.advance("launch-2", LaunchState.ACTIVE, LaunchState.DRAINING)
    end(store, "launch-2", LaunchState.DRAINING, 140)
    climb(store, "launch-3", 300)
    spans = store.launches.active_spans(110_000_000, 200_000_000)
    assert [(s.launch.launch_id, s.from_us, s.to_us) for s in spans] == [
        ("launch-1", 110_000_000, 200_000_000),
        ("launch-2", 120_000_000, 140_000_000),
    ]
    assert spans[1].duration_us == 20_000_000
    assert store.launches.active_spans(140_000_000, 150_000_000)[0].launch.launch_id == "launch-1"


def test_proofs_round_trip(store):
    """A proof comes back equal, by id, launch, miner and time."""
    verdict = GpuVerdict("GPU-1", "l4", False, Reason.PROOF_LATE, 1, 2, 3, 4)
    proof = Proof("p", "launch-1", "miner", "test", "instance", True, 9, 5, (verdict,), "c", "s")
    store.proofs.insert(proof)
    assert store.proofs.get("p") == proof
    assert store.proofs.by_launch("launch-1") == (proof,)
    assert store.proofs.by_miner("miner", 9) == (proof,)
    assert store.proofs.by_miner("miner", 10) == ()
    assert store.proofs.between(0, 9) == ()
    assert store.proofs.get("q") is None
