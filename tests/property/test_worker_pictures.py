"""A picture that is told to workers as changes is the picture that the main process has."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from chutes_core.validator.domain.accounts import ApiKey, Scope
from chutes_core.validator.domain.chutes import Cord
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import (
    AliasView,
    ChuteView,
    FreeCalls,
    InstanceView,
    PayerView,
    Snapshot,
)
from chutes_core.validator.gateway.workers.picture import Picture, encode

NAMES = st.sampled_from(["a", "b", "c"])
COUNTS = st.integers(0, 2**60)

KEYS = st.builds(
    ApiKey,
    key_id=NAMES,
    user_id=NAMES,
    name=st.text(max_size=5),
    secret_sha256=NAMES,
    admin=st.booleans(),
    scopes=st.lists(
        st.builds(Scope, st.sampled_from(["images", "chutes"]), st.none() | NAMES, st.none()),
        max_size=2,
    ).map(tuple),
    created_at_s=COUNTS,
    expires_at_s=st.none() | COUNTS,
    budget_rao=st.none() | COUNTS,
)
PAYERS = st.builds(
    PayerView,
    NAMES,
    NAMES,
    st.integers(-(2**60), 2**60),
    st.booleans(),
    st.none() | st.builds(FreeCalls, COUNTS, COUNTS, COUNTS),
)
CORDS = st.builds(Cord, function=NAMES, path=NAMES, method=st.just("POST"), stream=st.booleans())
CHUTES = st.builds(
    ChuteView,
    chute_id=NAMES,
    slug=NAMES,
    name=st.text(max_size=5),
    owner_id=NAMES,
    public=st.booleans(),
    shared_with=st.frozensets(NAMES),
    cords=st.lists(CORDS, max_size=2).map(tuple),
    rate=st.builds(Rate, NAMES, COUNTS, COUNTS),
    concurrency=st.integers(1, 9),
    standard_template=st.none() | NAMES,
    cold_reason=st.text(max_size=5),
)
SECRETS = st.binary(min_size=32, max_size=32)
INSTANCES = st.builds(
    InstanceView, NAMES, NAMES, st.just("127.0.0.1"), st.integers(1, 9), SECRETS, SECRETS, COUNTS
)
SNAPSHOTS = st.builds(
    Snapshot,
    keys=st.dictionaries(NAMES, KEYS),
    payers=st.dictionaries(NAMES, PAYERS),
    chutes=st.dictionaries(NAMES, CHUTES),
    slugs=st.dictionaries(NAMES, NAMES),
    models=st.dictionaries(NAMES, NAMES),
    aliases=st.dictionaries(
        NAMES, st.builds(AliasView, NAMES, NAMES, st.lists(NAMES, max_size=2).map(tuple))
    ),
    instances=st.dictionaries(NAMES, st.lists(INSTANCES, max_size=2).map(tuple)),
    drained=st.dictionaries(NAMES, COUNTS),
    ledger_entry=COUNTS,
)


@given(st.lists(SNAPSHOTS, min_size=1, max_size=4))
def test_changes_make_the_same_picture(snapshots):
    """Whatever changes, a worker that was told all changes has what a new one is told whole."""
    told, before = Picture(), Snapshot()
    for version, snapshot in enumerate(snapshots, 1):
        assert told.apply(orjson.loads(encode(before, snapshot, version))) == snapshot
        before = snapshot
    whole = orjson.loads(encode(Snapshot(), before, len(snapshots)))
    assert Picture().apply(whole) == before
