"""Laws of the placement plan, for every world."""

import uuid
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chutes_core.miner.placement import (
    Launch,
    NoFit,
    Plan,
    Running,
    Slot,
    Stop,
    World,
    plan,
)
from chutes_core.wire.control import MAX_BOUNTY, WantedChute

CLASSES = ("h100_sxm", "a100", "4090")
VALIDATORS = ("va", "vb", "vc")
IMAGES = tuple(str(uuid.UUID(int=n)) for n in range(3))


@st.composite
def chutes(draw, number):
    return WantedChute(
        chute_id=str(uuid.UUID(int=1000 + number)),
        version=str(uuid.UUID(int=2000)),
        image_id=draw(st.sampled_from(IMAGES)),
        gpu_count=draw(st.integers(1, 3)),
        gpu_classes=tuple(draw(st.sets(st.sampled_from(CLASSES)))),
        rao_per_hour=draw(st.integers(0, 5)),
        missing=draw(st.integers(1, 3)),
        bounty=draw(st.sampled_from((0, 0, 1, 4, MAX_BOUNTY))),
    )


@st.composite
def worlds(draw):
    slots, running = [], []
    for n in range(draw(st.integers(0, 7))):
        lessee = draw(st.sampled_from((*VALIDATORS, None)))
        launch = f"launch-{n}" if draw(st.booleans()) and draw(st.booleans()) else None
        well = draw(st.sampled_from((True, True, True, False)))
        slots.append(Slot(f"gpu-{n}", draw(st.sampled_from(CLASSES)), lessee, launch, well))
        if launch:
            reason = draw(st.sampled_from((None, None, "scaled_down")))
            running.append(Running(launch, lessee or "va", (f"gpu-{n}",), reason))
    wanted = {
        v: tuple(draw(chutes(10 * i + n)) for n in range(draw(st.integers(0, 3))))
        for i, v in enumerate(VALIDATORS)
    }
    pairs = [(v, c.chute_id) for v, listed in wanted.items() for c in listed]
    backing_off = draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    warm = draw(st.sets(st.sampled_from(IMAGES)))
    models = draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    leaving = draw(st.sets(st.sampled_from([r.launch_id for r in running]))) if running else ()
    return World(
        tuple(slots),
        tuple(running),
        wanted,
        frozenset(warm),
        frozenset(models),
        frozenset(backing_off),
        departing=dict.fromkeys(leaving, "share_returned"),
        outdated=frozenset(draw(st.sets(st.sampled_from(VALIDATORS), max_size=1))),
    )


def launches(planned: Plan):
    return [action for action in planned.actions if isinstance(action, Launch)]


def applied(world: World, planned: Plan) -> World:
    """The world after everything in the plan has succeeded."""
    stopped = {a.launch_id for a in planned.actions if isinstance(a, Stop)}
    running = [r for r in world.running if r.launch_id not in stopped]
    started, wanted = {}, {v: list(listed) for v, listed in world.wanted.items()}
    for n, action in enumerate(launches(planned)):
        launch_id = f"new-{len(world.running)}-{n}"
        running.append(Running(launch_id, action.validator_hotkey, action.gpu_uuids))
        started |= dict.fromkeys(action.gpu_uuids, launch_id)
        listed = wanted[action.validator_hotkey]
        at = next(i for i, c in enumerate(listed) if c.chute_id == action.chute.chute_id)
        left = listed[at].missing - 1
        if left:
            listed[at] = listed[at].model_copy(update={"missing": left})
        else:
            del listed[at]
    slots = tuple(
        Slot(
            s.gpu_uuid,
            s.gpu_class,
            s.lessee,
            started.get(s.gpu_uuid, None if s.launch_id in stopped else s.launch_id),
            s.well,
        )
        for s in world.slots
    )
    return World(
        slots,
        tuple(running),
        {v: tuple(listed) for v, listed in wanted.items()},
        world.warm_images,
        world.warm_models,
        world.backing_off,
        departing={i: why for i, why in world.departing.items() if i not in stopped},
        outdated=world.outdated,
    )


@given(worlds())
def test_no_gpu_is_committed_twice(world):
    """A GPU is in at most one launch, and never in one while it is busy."""
    given_out = [gpu for action in launches(plan(world)) for gpu in action.gpu_uuids]
    busy = {gpu for r in world.running for gpu in r.gpu_uuids}
    assert len(given_out) == len(set(given_out))
    assert not busy & set(given_out)


@given(worlds())
def test_launches_meet_lease_class_and_count(world):
    """Each launch takes as many GPUs as asked, of one admitted class, leased to its validator."""
    slots = {slot.gpu_uuid: slot for slot in world.slots}
    for action in launches(plan(world)):
        used = [slots[gpu] for gpu in action.gpu_uuids]
        assert len(used) == action.chute.gpu_count
        assert {slot.lessee for slot in used} == {action.validator_hotkey}
        assert len({slot.gpu_class for slot in used}) == 1
        assert not action.chute.gpu_classes or used[0].gpu_class in action.chute.gpu_classes
        assert (action.validator_hotkey, action.chute.chute_id) not in world.backing_off


@given(worlds())
def test_nothing_starts_where_it_would_have_to_leave(world):
    """No launch takes a GPU that is unwell, or is for a validator whose protocol is not ours."""
    well = {slot.gpu_uuid for slot in world.slots if slot.well}
    for action in launches(plan(world)):
        assert set(action.gpu_uuids) <= well
        assert action.validator_hotkey not in world.outdated


@given(worlds())
def test_only_what_must_leave_is_stopped(world):
    """A stop has its validator's reason, or is drained because it must leave; no other is."""
    runs = {run.launch_id: run for run in world.running}
    for stop in plan(world).actions:
        if isinstance(stop, Stop):
            ended = runs[stop.launch_id].end_reason
            assert stop.reason == (ended or world.departing[stop.launch_id])
            assert stop.drain == (ended is None)


@given(worlds())
def test_applying_plans_reaches_a_fixed_point(world):
    """Two rounds (one to stop, one to start) leave nothing to do."""
    world = applied(world, plan(world))
    world = applied(world, plan(world))
    assert plan(world).actions == ()


@given(worlds())
def test_no_more_is_started_than_is_missing(world):
    """A chute gets at most the instances that it misses; a chute that got fewer has a reason."""
    planned = plan(world)
    refused = {(n.validator_hotkey, n.chute_id) for n in planned.unplaced}
    for validator, listed in world.wanted.items():
        for chute in listed:
            mine = [a for a in launches(planned) if a.chute.chute_id == chute.chute_id]
            assert len(mine) <= chute.missing
            assert (len(mine) < chute.missing) == ((validator, chute.chute_id) in refused)


@given(worlds(), st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_order(world, random):
    """Shuffled inputs give the same plan."""
    slots, running = list(world.slots), list(world.running)
    random.shuffle(slots)
    random.shuffle(running)
    wanted = {v: tuple(reversed(listed)) for v, listed in reversed(list(world.wanted.items()))}
    shuffled = replace(world, slots=tuple(slots), running=tuple(running), wanted=wanted)
    assert plan(shuffled).actions == plan(world).actions


@given(worlds(), st.sampled_from(VALIDATORS), st.integers(0, MAX_BOUNTY))
def test_bounties_of_one_validator_change_nothing_for_another(world, liar, bounty):
    """Whatever a validator claims, all others get the same launches on the same GPUs."""
    claimed = tuple(c.model_copy(update={"bounty": bounty}) for c in world.wanted[liar])
    lied = replace(world, wanted={**world.wanted, liar: claimed})

    def others(planned):
        return [
            (a.validator_hotkey, a.chute.chute_id, a.gpu_uuids)
            for a in launches(planned)
            if a.validator_hotkey != liar
        ]

    assert others(plan(lied)) == others(plan(world))
    leased = {slot.gpu_uuid for slot in world.slots if slot.lessee == liar}
    got = {g for a in launches(plan(lied)) if a.validator_hotkey == liar for g in a.gpu_uuids}
    assert got <= leased


@given(worlds())
def test_no_bounty_stops_anything(world):
    """What runs is stopped for the same reasons with the greatest bounties and with none."""

    def stops(bounty):
        wanted = {
            validator: tuple(c.model_copy(update={"bounty": bounty}) for c in listed)
            for validator, listed in world.wanted.items()
        }
        planned = plan(replace(world, wanted=wanted))
        return [action for action in planned.actions if isinstance(action, Stop)]

    assert stops(0) == stops(MAX_BOUNTY)


@given(worlds())
def test_warm_comes_before_cold_of_the_same_kind(world):
    """A wish that is cold gets no GPU which a warm one of its kind and bounty had to go without."""
    planned = plan(world)
    missed = {(n.validator_hotkey, n.chute_id) for n in planned.unplaced if n.reason == "gpus_busy"}
    for action in launches(planned):
        mine = _warmth(world, action.validator_hotkey, action.chute)
        for other in world.wanted[action.validator_hotkey]:
            if (action.validator_hotkey, other.chute_id) not in missed:
                continue
            if _kind(other) == _kind(action.chute):
                assert mine >= _warmth(world, action.validator_hotkey, other)


def _kind(chute):
    return chute.gpu_count, chute.gpu_classes, chute.bounty


def _warmth(world, validator, chute):
    models = (validator, chute.chute_id) in world.warm_models
    return chute.image_id in world.warm_images, models


def chute(number, **changes):
    values = {
        "chute_id": str(uuid.UUID(int=number)),
        "version": str(uuid.UUID(int=99)),
        "image_id": IMAGES[0],
        "gpu_count": 1,
        "gpu_classes": ("a100",),
        "rao_per_hour": 1,
        "missing": 1,
    }
    return WantedChute(**{**values, **changes})


def one(world):
    return [action.chute for action in launches(plan(world))]


def test_a_warm_image_comes_before_a_higher_price():
    """With one GPU free, the chute whose image is here is started."""
    warm, dear = chute(1, image_id=IMAGES[1]), chute(2, rao_per_hour=50)
    slots = (Slot("g", "a100", "va"),)
    assert one(World(slots, (), {"va": (dear, warm)}, frozenset({IMAGES[1]}))) == [warm]


def test_warm_models_come_after_a_warm_image_and_before_a_higher_price():
    """Of two whose images are here, the one whose models are here is started."""
    dear, warm, image = chute(1, rao_per_hour=50), chute(2), chute(3, image_id=IMAGES[1])
    slots = (Slot("g0", "a100", "va"), Slot("g1", "a100", "va"))
    models = frozenset({("va", warm.chute_id)})
    world = World(slots, (), {"va": (dear, warm, image)}, frozenset({IMAGES[1]}), models)
    assert one(world) == [image, warm]
    assert [action.reason for action in launches(plan(world))] == [
        "warm image, 1 rao an hour per GPU",
        "warm models, 1 rao an hour per GPU",
    ]


def test_anothers_warm_models_are_not_ones_own():
    """The same chute id at another validator has a cache of its own."""
    dear, same = chute(1, rao_per_hour=50), chute(2)
    models = frozenset({("vb", same.chute_id)})
    world = World((Slot("g", "a100", "va"),), (), {"va": (dear, same)}, warm_models=models)
    assert one(world) == [dear]


def test_a_bounty_comes_before_warmth_and_price():
    """Who has callers that wait is served first, and the longest wait of them."""
    warm, short, long = chute(1, image_id=IMAGES[1]), chute(2, bounty=1), chute(3, bounty=3)
    slots = (Slot("g0", "a100", "va"), Slot("g1", "a100", "va"))
    world = World(slots, (), {"va": (warm, short, long)}, frozenset({IMAGES[1]}))
    assert one(world) == [long, short]
    assert launches(plan(world))[0].reason == "bounty 3, 1 rao an hour per GPU"


def test_among_cold_images_the_price_per_gpu_decides():
    """A dear chute on many GPUs may pay less for each of them."""
    single, double = chute(1, rao_per_hour=6), chute(2, rao_per_hour=10, gpu_count=2)
    slots = (Slot("g0", "a100", "va"), Slot("g1", "a100", "va"))
    assert one(World(slots, (), {"va": (double, single)})) == [single]


def test_every_misfit_has_its_reason():
    """Lease, class, count, occupation and back-off are told apart."""
    slots = (Slot("g0", "a100", "va"), Slot("g1", "a100", "va", "launch-1"))
    running = (Running("launch-1", "va", ("g1",)),)
    wanted = {
        "va": (
            chute(1, gpu_classes=("4090",)),
            chute(2, gpu_count=3),
            chute(3, gpu_count=2),
            chute(4),
        ),
        "vb": (chute(5),),
    }
    off = frozenset({("va", chute(4).chute_id)})
    planned = plan(World(slots, running, wanted, backing_off=off))
    reasons = {miss.chute_id: miss.reason for miss in planned.unplaced}
    assert reasons == {
        chute(1).chute_id: "gpu_class",
        chute(2).chute_id: "not_enough_gpus",
        chute(3).chute_id: "gpus_busy",
        chute(4).chute_id: "backing_off",
        chute(5).chute_id: "no_lease",
    }
    assert all(isinstance(miss, NoFit) for miss in planned.unplaced)
