"""Records survive the store unchanged, and launches never leave their transition table."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.accounts import Account, ApiKey, Scope
from chutes_core.validator.domain.chutes import Chute, Cord, Selector
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.launches import (
    Launch,
    LaunchState,
    Reason,
    check_transition,
)
from chutes_core.validator.domain.verdicts import GpuVerdict, Proof
from chutes_core.validator.store.database import Store

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
numbers = st.integers(0, 2**63 - 1)
schemas = st.none() | st.dictionaries(texts, st.integers() | texts | st.booleans(), max_size=3)
selectors = st.builds(
    Selector,
    gpu_count=st.integers(1, 8),
    min_vram_gb_per_gpu=st.integers(16, 140),
    max_hourly_price_usd_micros=st.none() | numbers,
    include=st.none() | st.lists(texts, max_size=3).map(tuple),
    exclude=st.lists(texts, max_size=3).map(tuple),
)
cords = st.builds(
    Cord,
    function=texts,
    path=texts,
    method=texts,
    public_api_path=st.none() | texts,
    public_api_method=st.none() | texts,
    stream=st.booleans(),
    passthrough=st.booleans(),
    input_schema=schemas,
    output_schema=schemas,
    minimal_input_schema=schemas,
    output_content_type=st.none() | texts,
)
chutes = st.builds(
    Chute,
    chute_id=st.just("c"),
    version=texts,
    user_id=st.just("u"),
    username=texts,
    name=texts,
    slug=texts,
    tagline=texts,
    readme=texts,
    public=st.booleans(),
    standard_template=st.none() | texts,
    image_id=texts,
    filename=texts,
    ref_str=texts,
    code=texts,
    selector=selectors,
    cords=st.lists(cords, max_size=3).map(tuple),
    concurrency=numbers,
    max_instances=numbers,
    scaling_threshold_percent=numbers,
    shutdown_after_s=numbers,
    created_at_s=numbers,
    updated_at_s=numbers,
    shared_with=st.just(frozenset()),
    deleted_at_s=st.none(),
    allow_external_egress=st.booleans(),
)
verdicts = st.builds(
    GpuVerdict,
    gpu_uuid=texts,
    gpu_class=texts,
    accepted=st.booleans(),
    reason=st.sampled_from(Reason),
    leg1_us=numbers,
    leg2_us=numbers,
    deadline1_us=numbers,
    deadline2_us=numbers,
)
proofs = st.builds(
    Proof,
    proof_id=st.just("p"),
    launch_id=texts,
    miner_hotkey=texts,
    profile=texts,
    scope=texts,
    test=st.booleans(),
    at_s=numbers,
    round_trip_us=numbers,
    gpus=st.lists(verdicts, max_size=3).map(tuple),
    commitment=texts,
    secret=texts,
)
invocations = st.builds(
    Invocation,
    worker=texts,
    sequence=numbers,
    invocation_id=texts,
    user_id=texts,
    key_id=texts,
    chute_id=texts,
    launch_id=texts,
    rate_id=texts,
    rao_per_hour=numbers,
    hold_rao=numbers,
    free=st.booleans(),
    started_at_us=numbers,
    usage_us=numbers,
    bytes_in=numbers,
    bytes_out=numbers,
    attempts=numbers,
    status=numbers,
    outcome=st.sampled_from(("ok", "client_gone", "chute_error", "failed")),
)
scopes = st.builds(
    Scope,
    object_type=st.sampled_from(("images", "chutes", "invocations")),
    object_id=st.none() | texts,
    action=st.none() | st.sampled_from(("read", "write", "delete", "invoke")),
)
keys = st.builds(
    ApiKey,
    key_id=st.just("k"),
    user_id=st.just("u"),
    name=texts,
    secret_sha256=texts,
    admin=st.booleans(),
    scopes=st.lists(scopes, max_size=4).map(tuple),
    created_at_s=numbers,
    last_used_at_s=st.none() | numbers,
    revoked_at_s=st.none() | numbers,
)


@settings(max_examples=60, deadline=None)
@given(chutes, proofs, invocations, keys)
def test_records_come_back_as_they_went_in(chute, proof, invocation, key):
    """Whatever a record holds, reading it gives an equal record."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory) / "v.db")
        store.accounts.create(lambda n: Account("u", n, "u", "h", "c", "p", "d", "0", 1))
        store.chutes.save(chute)
        store.proofs.insert(proof)
        store.invocations.insert_many([invocation])
        store.keys.insert(key)
        assert store.chutes.get("c") == chute
        assert store.proofs.get("p") == proof
        assert store.invocations.get(invocation.invocation_id) == invocation
        assert store.keys.get("k") == key
        store.close()


class Launches(RuleBasedStateMachine):
    """Drives launches by random steps beside a model that is a dictionary."""

    gpus = ("GPU-1", "GPU-2", "GPU-3")

    @initialize()
    def begin(self):
        """Open an empty store."""
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "v.db"
        self.store = Store(self.path)
        self.model = {}

    def teardown(self):
        """Close and remove it."""
        if hasattr(self, "store"):
            self.store.close()
            self.directory.cleanup()

    def busy(self):
        """Return the GPUs that open launches of the model hold."""
        return {
            gpu: launch_id
            for launch_id, (state, gpus) in self.model.items()
            if state is not LaunchState.GONE
            for gpu in gpus
        }

    @rule(wanted=st.sets(st.sampled_from(gpus), min_size=1))
    def request(self, wanted):
        """A launch is kept exactly when all its GPUs are free."""
        launch_id = f"launch-{len(self.model)}"
        launch = Launch(
            launch_id, "c", "v", "i", "miner", "cold", 1, "n", tuple(sorted(wanted)), "l4", "h", 1,
            "test", True, 1, 2,
        )  # fmt: skip
        try:
            self.store.launches.insert(launch, b"k", b"t")
        except Conflict:
            assert wanted & set(self.busy())
            return
        assert not wanted & set(self.busy())
        self.model[launch_id] = (LaunchState.REQUESTED, launch.gpu_uuids)

    @rule(data=st.data(), before=st.sampled_from(LaunchState), after=st.sampled_from(LaunchState))
    def step(self, data, before, after):
        """A step happens exactly when the launch is there and the table has it."""
        if not self.model:
            return
        launch_id = data.draw(st.sampled_from(sorted(self.model)))
        state, gpus = self.model[launch_id]
        try:
            check_transition(before, after)
            allowed = state is before
        except Conflict:
            allowed = False
        try:
            moved = self.store.launches.advance(launch_id, before, after, gone_at_s=3)
        except Conflict:
            assert not allowed
            return
        assert allowed
        assert moved.state is after
        self.model[launch_id] = (after, gpus)

    @rule()
    def restart(self):
        """A restart changes nothing."""
        self.store.close()
        self.store = Store(self.path)

    @invariant()
    def agrees(self):
        """The store says of every launch and GPU what the model says."""
        if not hasattr(self, "store"):
            return
        found = {launch.launch_id: launch.state for launch in self.store.launches.open()}
        expected = {i: s for i, (s, _) in self.model.items() if s is not LaunchState.GONE}
        assert found == expected
        assert self.store.launches.busy_gpus("miner") == self.busy()
        for launch_id, (state, _) in self.model.items():
            erased = self.store.launches.secrets(launch_id).private_key == b""
            assert erased == (state is LaunchState.GONE)


TestLaunches = Launches.TestCase
TestLaunches.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
