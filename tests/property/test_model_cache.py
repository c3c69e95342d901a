"""Laws of the model cache's upkeep, for every set of folders."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chutes_core.miner.cache.folders import Key
from chutes_core.miner.cache.upkeep import Bounds, Held, overrun, tidy

KEYS = [Key(validator, f"chute-{n}") for validator in ("va", "vb") for n in range(4)]


@st.composite
def caches(draw):
    """Folders, bounds for so many GPUs, the disk's free bytes, and what overran before."""
    gpus = draw(st.integers(1, 8))
    most = draw(st.integers(0, 100))
    left, folders = gpus, []
    for key in draw(st.lists(st.sampled_from(KEYS), unique=True)):
        using = draw(st.integers(0, left))
        left -= using
        excess = draw(st.sampled_from(("", "", "", "too many files")))
        size, at_s = draw(st.integers(0, 60)), draw(st.integers(0, 5))
        folders.append(Held(key, size, at_s, using, excess))
    bounds = Bounds(most, most // gpus, draw(st.integers(0, 50)))
    condemned = draw(st.frozensets(st.sampled_from(KEYS), max_size=2))
    return folders, bounds, draw(st.integers(0, 100)), condemned


@given(caches())
def test_nothing_in_use_is_evicted_and_nothing_else_is_ended(cache):
    """A folder with instances never goes, and only instances there are can be ended."""
    folders, bounds, free, condemned = cache
    todo = tidy(folders, bounds, free, condemned)
    in_use = {one.key for one in folders if one.gpus}
    assert not in_use & set(todo.evict)
    assert set(todo.end) <= in_use


@given(caches())
def test_what_stays_fits_once_what_overran_has_ended(cache):
    """Parts add up to no more than the bound, so that it holds whoever uses the cache."""
    folders, bounds, free, condemned = cache
    todo = tidy(folders, bounds, free, condemned)
    stays = [one for one in folders if one.key not in todo.evict and one.key not in todo.end]
    idle = [one for one in stays if not one.gpus]
    used = sum(one.used_bytes for one in stays)
    if bounds.most_bytes:
        assert used <= bounds.most_bytes
        assert all(overrun(one, bounds) == "" for one in stays if one.gpus)
    else:
        assert idle == []


@given(caches())
def test_the_oldest_go_first_and_none_in_vain(cache):
    """What goes for room was used before all that stays; without the last of them it was needed."""
    folders, bounds, free, condemned = cache
    todo = tidy(folders, bounds, free, condemned)
    age = {one.key: (one.used_at_s, one.key) for one in folders}
    room = sorted(
        (key for key, why in todo.evict.items() if why in ("room", "disk_short")), key=age.get
    )
    idle = [one for one in folders if not one.gpus and one.used_bytes and one.key not in todo.evict]
    for one in idle:
        assert all(age[key] < age[one.key] for key in room)
    if room:
        size = {one.key: one.used_bytes for one in folders}
        held = sum(size[key] for key in size if key not in todo.evict) + size[room[-1]]
        was_free = free + sum(size[key] for key in todo.evict) - size[room[-1]]
        assert held > bounds.most_bytes or was_free < bounds.kept_free_bytes


@given(caches())
def test_doing_it_leaves_nothing_to_do(cache):
    """Evicted and ended, the cache is as it should be; the order of folders does not matter."""
    folders, bounds, free, condemned = cache
    todo = tidy(folders, bounds, free, condemned)
    assert tidy(list(reversed(folders)), bounds, free, condemned) == todo
    freed = free + sum(one.used_bytes for one in folders if one.key in todo.evict)
    ended = [replace(one, gpus=0) if one.key in todo.end else one for one in folders]
    left = [one for one in ended if one.key not in todo.evict]
    then = tidy(left, bounds, freed, frozenset(todo.end))
    assert then.end == {}
    assert set(todo.end) <= set(then.evict)
