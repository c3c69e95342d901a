"""Laws of who must leave: lent shares go back, nothing young and nothing promised is disturbed."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chutes_core.miner.departures import NOTICE_BLOCKS, Promise, departures
from chutes_core.miner.placement import Running
from chutes_core.miner.shares import Tenant, share_gpus, to_return

VALIDATORS = ("va", "vb", "vc")
BLOCK = 100
MIN_RUN_S = 600.0


@st.composite
def houses(draw):
    """Some GPUs, who leases each, what runs on them, and what is missed."""
    gpus = tuple(f"gpu-{n}" for n in range(draw(st.integers(0, 8))))
    stakes = {v: draw(st.integers(0, 100)) for v in draw(st.sets(st.sampled_from(VALIDATORS)))}
    leased, tenants = {}, []
    for gpu in gpus:
        holder = draw(st.sampled_from((*VALIDATORS, None)))
        if holder is None:
            continue
        leased[gpu] = holder
        if draw(st.booleans()):
            age_s = draw(st.sampled_from((0.0, 599.0, 600.0, 5000.0)))
            tenants.append(Tenant((gpu,), holder, age_s, draw(st.integers(0, 3))))
    missing = {v: draw(st.integers(0, 4)) for v in stakes}
    return gpus, stakes, leased, tuple(tenants), missing


def returned(house):
    gpus, stakes, leased, tenants, missing = house
    return to_return(
        gpus, stakes, leased=leased, tenants=tenants, missing=missing, min_run_s=MIN_RUN_S
    )


@given(houses())
def test_nothing_is_taken_back_inside_its_minimum_run_time(house):
    """Every GPU that goes back ran an instance that has had its time."""
    aged = {gpu for t in house[3] if t.age_s >= MIN_RUN_S for gpu in t.gpu_uuids}
    assert returned(house) <= aged


@given(houses())
def test_nobody_is_left_with_less_than_its_share(house):
    """A validator gives back what is over its share, and nothing more."""
    gpus, stakes, leased, _, _ = house
    back = Counter(leased[gpu] for gpu in returned(house))
    holds = Counter(leased.values())
    if not back:
        return
    shares = Counter(share_gpus(gpus, stakes, {}).values())
    for validator, count in back.items():
        assert holds[validator] - count >= shares.get(validator, 0)


@given(houses())
def test_no_more_goes_back_than_is_owed(house):
    """What goes back is at most what the others want, and at most up to their shares."""
    gpus, stakes, leased, _, missing = house
    shares = Counter(share_gpus(gpus, stakes, {}).values())
    holds = Counter(leased.values())
    owed = sum(min(n, max(0, shares.get(v, 0) - holds[v])) for v, n in missing.items())
    assert len(returned(house)) <= owed


@given(houses())
def test_once_it_went_back_nothing_more_does(house):
    """With those and the free GPUs leased to whom they were owed, the next round takes nothing."""
    gpus, stakes, leased, tenants, missing = house
    back = returned(house)
    if not back:
        return
    pinned = {gpu: v for gpu, v in leased.items() if gpu not in back}
    wanting = {v: s for v, s in stakes.items() if missing.get(v)} or stakes
    again = {**leased, **share_gpus(gpus, wanting, pinned, stakes)}
    left = tuple(t for t in tenants if not back & set(t.gpu_uuids))
    gained = Counter(v for gpu, v in again.items() if leased.get(gpu) != v)
    still = {v: max(0, n - gained[v]) for v, n in missing.items()}
    assert returned((gpus, stakes, again, left, still)) == frozenset()


@given(houses())
def test_everybody_has_one_gpu_while_there_are_enough(house):
    """With nothing pinned each validator gets one, whatever the stakes; each GPU has one lessee."""
    gpus, stakes, _, _, missing = house
    shares = share_gpus(gpus, stakes, {})
    assert set(shares) == (set(gpus) if stakes else set())
    if len(gpus) >= len(stakes):
        assert set(shares.values()) == set(stakes)
    eager = {v: s for v, s in stakes.items() if missing[v]} or stakes
    lent = Counter(share_gpus(gpus, eager, {}, stakes).values())
    if len(gpus) >= len(stakes):
        assert all(lent[v] >= 1 for v in eager)


@st.composite
def homes(draw):
    running, promises = [], {}
    for n in range(draw(st.integers(0, 5))):
        gpu, validator = f"gpu-{n}", draw(st.sampled_from(VALIDATORS))
        ended = draw(st.sampled_from((None, None, "scaled_down")))
        running.append(Running(f"launch-{n}", validator, (gpu,), ended))
        holder = draw(st.sampled_from((validator, validator, *VALIDATORS, None)))
        if holder is not None:
            to_block = BLOCK + draw(st.integers(0, 10))
            then = draw(st.sampled_from((None, *(v for v in VALIDATORS if v != holder))))
            promises[gpu] = Promise(holder, to_block, then)
    unwell = frozenset(draw(st.sets(st.sampled_from([f"gpu-{n}" for n in range(5)]))))
    outdated = frozenset(draw(st.sets(st.sampled_from(VALIDATORS))))
    return tuple(running), promises, unwell, outdated


@given(homes())
def test_who_leaves_has_a_reason_and_who_stays_has_none(home):
    """Promised, well and spoken to: it stays. Everything else leaves, with the right word."""
    running, promises, unwell, outdated = home
    leaving = departures(running, promises=promises, block=BLOCK, unwell=unwell, outdated=outdated)
    for run in running:
        (gpu,) = run.gpu_uuids
        promise = promises.get(gpu)
        held = promise is not None and promise.validator_hotkey == run.validator_hotkey
        soon = held and promise.then is not None and promise.to_block - BLOCK < NOTICE_BLOCKS
        stays = held and not soon and gpu not in unwell and run.validator_hotkey not in outdated
        assert (run.launch_id not in leaving) == (stays or run.end_reason is not None)
