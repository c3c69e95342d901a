"""The deployer against a validator on a real socket, with real processes and the real relay."""

import asyncio
import contextlib
import socket

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.bundles import Bundles
from chutes_core.miner.cache.folders import Folders, Key
from chutes_core.miner.cache.model_cache import ModelCache
from chutes_core.miner.cache.upkeep import Bounds
from chutes_core.miner.deployer import Deployer
from chutes_core.miner.discovery import Validator
from chutes_core.miner.launcher import Launcher
from chutes_core.miner.placement import Launch, Running, Stop
from chutes_core.miner.relay import Relay
from chutes_core.miner.runtime.process import ProcessRuntime
from chutes_core.miner.store import MinerStore
from chutes_core.miner.validator_api import HttpValidatorApi
from chutes_core.wire.lease import Lease
from chutes_core.wire.sealing import PROVEN, Preamble

WAIT_S = 90


class Miner:
    """One life of a miner: everything below app.py, on the same data directory."""

    def __init__(self, api, validator, tmp_path, keys, make_node, command):
        self.door = socket.create_server(("127.0.0.1", 0))
        self.door.setblocking(False)
        self.validator = Validator(validator.hotkey, validator.url, 1000)
        self.known = {validator.hotkey: self.validator}
        self.key = keys["miner"]
        self.node = make_node(self.door.getsockname()[1])
        self.store = MinerStore(tmp_path / "miner.sqlite3")
        self.relay = Relay()
        self.backoff = BackOff(ManualClock())
        self.runtime = ProcessRuntime(tmp_path, environ={}, command=command)
        self.deployer = Deployer(
            launcher=Launcher(
                node=self.node,
                runtime=self.runtime,
                api=api,
                images=Bundles(tmp_path / "bundles", api),
                graval_python="python3",
            ),
            runtime=self.runtime,
            relay=self.relay,
            store=self.store,
            api=api,
            backoff=self.backoff,
            lookup=lambda hotkey: self.known.get(hotkey),
        )

    def begin(self, chute, index=0):
        gpu = self.node.gpus[index].uuid
        lease = Lease.sign(
            self.key,
            gpu_uuid=gpu,
            validator_hotkey=self.validator.hotkey,
            from_block=0,
            to_block=99,
        )
        action = Launch(self.validator.hotkey, chute, (gpu,))
        self.deployer.begin(action, self.validator, (lease,))
        return gpu

    async def watch(self):
        await self.deployer.watch([self.validator])

    async def call(self, grant, payload):
        """Dial the relay with the grant's ticket as the validator does."""
        port = self.door.getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ticket = bytes.fromhex(grant.ticket)
        hello = Preamble.build(ticket=ticket, launch_id=grant.launch_id, generation=PROVEN)
        writer.write(hello.to_bytes() + payload)
        try:
            return await asyncio.wait_for(reader.read(65536), WAIT_S)
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.fixture
async def begin_life(serve_validator, make_validator, tmp_path, keys, make_node, runner_command):
    """Start a miner's life; `kill` forgets it as kill -9 does, instances stay."""
    validator = await serve_validator(make_validator())
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(HttpValidatorApi(keys["miner"]))
        lives = []

        async def start(command=runner_command):
            miner = Miner(api, validator, tmp_path, keys, make_node, command)
            lives.append(miner)
            await miner.relay.start(miner.door)
            return validator, miner

        yield start
        for miner in lives:
            await miner.deployer.drain()
            await miner.relay.close()
            miner.store.close()
        for miner in lives:
            for child in miner.runtime._children.values():
                child.wait(WAIT_S)  # of a "killed" life: init would collect it


async def kill(miner):
    """What is left of a miner after kill -9: its files and its instances."""
    await miner.relay.close()
    miner.deployer.books.live.clear()


def only(items):
    (item,) = items
    return item


async def listening(validator, count=1):
    await validator.until(lambda: len(validator.events_of("listening")) == count, WAIT_S)
    return [validator.grants[launch_id] for launch_id, _ in validator.events_of("listening")]


async def gone(validator, count=1):
    await validator.until(lambda: len(validator.events_of("gone")) == count, WAIT_S)
    return [event for _, event in validator.events_of("gone")]


async def test_a_launch_goes_from_grant_to_calls(begin_life, keys):
    """Grant, bundle, image, instance, listening; then the relay carries the validator's bytes."""
    validator, miner = await begin_life()
    gpu = miner.begin(validator.want())
    assert miner.deployer.busy() == {gpu: validator.hotkey}
    grant = only(await listening(validator))
    event = only(validator.events_of("listening"))[1]
    assert event.instance_public_key == "ab" * 32
    sender, request = only(validator.requests)
    assert sender == keys["miner"].ss58_address
    assert (request.runtime, request.relay_port) == ("process", miner.node.relay_port)
    assert [lease.gpu_uuid for lease in request.leases] == [gpu]
    assert miner.deployer.launch_ids() == {gpu: grant.launch_id}
    assert await miner.call(grant, b"hello") == b"HELLO"


async def test_a_refusal_is_not_repeated_at_once(begin_life):
    """A refused launch frees its GPU and leaves the chute alone for a while."""
    validator, miner = await begin_life()
    validator.refuse = Conflict("lease_conflict", "leased twice")
    chute = validator.want()
    miner.begin(chute)
    await asyncio.gather(*miner.deployer._tasks)
    assert miner.deployer.busy() == {}
    assert miner.backoff.waiting() == {(validator.hotkey, chute.chute_id)}
    assert miner.store.launches() == ()


async def test_a_failed_image_frees_the_slot_with_its_log(begin_life, make_bundle):
    """A build that fails is reported gone with the reason and pip's words."""
    validator, miner = await begin_life()
    validator.bundle = make_bundle("RUN pip install --no-index no-such-thing-of-ours\n")
    chute = validator.want()
    miner.begin(chute)
    event = only(await gone(validator))
    assert event.reason == "image_failed"
    assert "no-such-thing-of-ours" in event.detail
    assert (validator.hotkey, chute.chute_id) in miner.backoff.waiting()
    await asyncio.gather(*miner.deployer._tasks)
    assert miner.deployer.busy() == {}
    assert miner.store.launches() == ()


async def test_a_wrong_bundle_is_not_used(begin_life, make_bundle):
    """A bundle whose digest is not the granted one ends the launch before anything runs."""
    validator, miner = await begin_life()
    real = validator.grant

    def grant(request):
        granted = real(request)
        size = granted.image.size_bytes
        validator.bundle = bytes(size)
        return granted

    validator.grant = grant
    miner.begin(validator.want())
    assert only(await gone(validator)).reason == "bundle_mismatch"
    assert miner.runtime.warm_images() == frozenset()


async def test_a_grant_for_something_else_is_given_back(begin_life):
    """A grant that does not fit the request is reported gone."""
    validator, miner = await begin_life()
    other = validator.want(2)
    real = validator.grant
    validator.grant = lambda request: real(request.model_copy(update={"chute_id": other.chute_id}))
    miner.begin(validator.want(1))
    assert only(await gone(validator)).reason == "bad_grant"


async def test_an_instance_that_dies_early_is_reported_with_its_output(begin_life):
    """An instance that never listens is reported with what it printed."""
    validator, miner = await begin_life(("-c", "import sys; print('no weights'); sys.exit(4)"))
    miner.begin(validator.want())
    event = only(await gone(validator))
    assert event.reason == "instance_ended"
    assert "no weights" in event.detail


async def test_an_instance_that_ends_is_noticed(begin_life):
    """An exit code becomes the reason, the log its detail, and the GPU is free again."""
    validator, miner = await begin_life()
    miner.begin(validator.want())
    grant = only(await listening(validator))
    assert await miner.call(grant, b"exit") == b""
    while miner.deployer.busy():
        await miner.watch()
    event = only(await gone(validator))
    assert event.reason == "exit_7"
    assert "tiny runner" in event.detail
    assert miner.store.launches() == ()
    assert miner.runtime.instances() == ()


async def test_a_launch_that_the_validator_ended_is_stopped(begin_life):
    """A launch that is gone there is marked, stopped by the plan's action, and not reported."""
    validator, miner = await begin_life()
    gpu = miner.begin(validator.want())
    grant = only(await listening(validator))
    validator.set_state(grant.launch_id, "gone", "scaled_down")
    await miner.watch()
    launch_id = grant.launch_id
    assert miner.deployer.running() == (
        Running(launch_id, validator.hotkey, (gpu,), "scaled_down"),
    )
    miner.deployer.stop(Stop(launch_id, "scaled_down"))
    await asyncio.gather(*miner.deployer._tasks)
    assert miner.deployer.busy() == {}
    assert miner.runtime.instances() == ()
    assert miner.backoff.waiting() == frozenset()
    assert validator.events_of("gone") == []


async def test_a_failed_proof_makes_the_chute_wait(begin_life):
    """A launch that ended by the miner's fault is not asked for again at once."""
    validator, miner = await begin_life()
    chute = validator.want()
    miner.begin(chute)
    grant = only(await listening(validator))
    validator.set_state(grant.launch_id, "gone", "proof_wrong")
    await miner.watch()
    miner.deployer.stop(Stop(grant.launch_id, "proof_wrong"))
    await asyncio.gather(*miner.deployer._tasks)
    assert miner.backoff.waiting() == {(validator.hotkey, chute.chute_id)}


async def test_a_killed_miner_takes_its_instances_back(begin_life):
    """After kill -9 the instance lives on, is adopted, and answers through the new relay."""
    validator, miner = await begin_life()
    gpu = miner.begin(validator.want())
    grant = only(await listening(validator))
    await kill(miner)
    _, again = await begin_life()
    await again.deployer.adopt()
    assert again.deployer.launch_ids() == {gpu: grant.launch_id}
    assert await again.call(grant, b"still") == b"STILL"
    await again.watch()
    assert validator.events_of("gone") == []


async def test_an_instance_that_ended_unwatched_is_reported(begin_life):
    """What ended while no miner looked is reported with its exit code once one does."""
    validator, miner = await begin_life()
    miner.begin(validator.want())
    grant = only(await listening(validator))
    assert await miner.call(grant, b"exit") == b""
    while miner.runtime.ended(grant.launch_id) is None:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)
    await kill(miner)
    _, again = await begin_life()
    await again.deployer.adopt()
    assert only(await gone(validator)).reason == "exit_7"
    assert again.runtime.instances() == ()


async def test_an_unfinished_launch_is_given_up_after_a_restart(begin_life):
    """A launch that was granted and not up when the miner was killed is ended and reported."""
    validator, miner = await begin_life(("-c", "import time; time.sleep(60)"))
    miner.begin(validator.want())
    while not miner.runtime.instances():  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)
    record = only(miner.store.launches())
    assert record.state == "granted"
    for task in tuple(miner.deployer._tasks):
        task.cancel()
    await kill(miner)
    _, again = await begin_life()
    await again.deployer.adopt()
    assert only(await gone(validator)).reason == "miner_restarted"
    assert again.runtime.instances() == ()


async def test_an_unheard_start_is_told_again(begin_life):
    """A miner killed between listening and saying so says it after its restart."""
    validator, miner = await begin_life()
    miner.begin(validator.want())
    grant = only(await listening(validator))
    validator.set_state(grant.launch_id, "requested")
    await kill(miner)
    _, again = await begin_life()
    await again.deployer.adopt()
    await again.watch()
    assert len(await listening(validator, 2)) == 2
    assert validator.statuses[grant.launch_id].state == "listening"


async def test_a_grant_cannot_take_over_another_launch(begin_life):
    """A grant that repeats the id of a running launch is refused and leaves that one alone."""
    validator, miner = await begin_life()
    gpu = miner.begin(validator.want(1), 0)
    grant = only(await listening(validator))
    real = validator.grant
    validator.grant = lambda request: real(request).model_copy(
        update={"launch_id": grant.launch_id}
    )
    miner.begin(validator.want(2), 1)
    await asyncio.gather(*miner.deployer._tasks)
    assert miner.deployer.launch_ids() == {gpu: grant.launch_id}
    assert await miner.call(grant, b"mine") == b"MINE"


async def test_an_orphan_without_a_record_is_removed(begin_life):
    """An instance that no record names is stopped at the next start."""
    validator, miner = await begin_life()
    miner.begin(validator.want())
    grant = only(await listening(validator))
    miner.store.delete_launch(grant.launch_id)
    await kill(miner)
    _, again = await begin_life()
    await again.deployer.adopt()
    assert again.runtime.instances() == ()
    assert again.deployer.busy() == {}


async def test_a_launch_that_the_miner_lost_is_given_back(begin_life):
    """A launch open at the validator and unknown here is reported gone, which frees its slot."""
    validator, miner = await begin_life()
    gpu = miner.node.gpus[0]
    request = type("Asked", (), {})()
    chute = validator.want()
    request.chute_id, request.runtime, request.gpus = chute.chute_id, "process", (gpu,)
    validator.grant(request)
    await miner.watch()
    assert only(await gone(validator)).reason == "miner_lost"


async def test_an_unheard_end_is_told_again(begin_life):
    """While its validator is unknown an end is kept, over a restart too, and told later."""
    validator, miner = await begin_life()
    miner.begin(validator.want())
    await listening(validator)
    miner.known.clear()
    await miner.deployer.drain()
    assert only(miner.store.launches()).end_reason == "miner_ended"
    await kill(miner)
    _, again = await begin_life()
    await again.deployer.adopt()
    await again.watch()
    assert only(await gone(validator)).reason == "miner_ended"
    assert again.store.launches() == ()


async def test_draining_ends_everything_and_takes_nothing_new(begin_life):
    """At the end every instance is stopped and reported, and no launch begins any more."""
    validator, miner = await begin_life()
    miner.begin(validator.want(1, missing=2), 0)
    await listening(validator)
    miner.begin(validator.wanted[0], 1)
    await listening(validator, 2)
    await miner.deployer.drain()
    assert {event.reason for event in await gone(validator, 2)} == {"miner_ended"}
    assert miner.runtime.instances() == ()
    miner.begin(validator.want(3))
    assert miner.deployer.busy() == {}


async def test_an_instance_that_serves_is_left_to_finish(begin_life):
    """Its validator is asked to take the calls away; the instance ends by itself, and is gone."""
    validator, miner = await begin_life()
    miner.begin(validator.want())
    grant = only(await listening(validator))
    validator.set_state(grant.launch_id, "active")
    await miner.watch()
    leaving = asyncio.create_task(miner.deployer.leave(within_s=WAIT_S))
    await validator.until(lambda: validator.events_of("draining"), WAIT_S)
    assert validator.events_of("gone") == []
    assert await miner.call(grant, b"ping") == b"PING"
    assert await miner.call(grant, b"exit") == b""
    await leaving
    assert only(await gone(validator)).reason == "miner_ended"
    assert miner.runtime.instances() == ()


async def test_an_instance_is_not_waited_for_where_nobody_hears(begin_life):
    """With its validator unknown or down an instance ends at once."""
    validator, miner = await begin_life()
    miner.begin(validator.want())
    grant = only(await listening(validator))
    validator.set_state(grant.launch_id, "active")
    await miner.watch()
    miner.known.clear()
    await miner.deployer.leave(within_s=WAIT_S)
    assert miner.runtime.instances() == ()


async def test_a_crash_loop_waits_ever_longer_with_its_reason(begin_life):
    """An instance that was active for a moment and died does not wipe out its failures."""
    validator, miner = await begin_life()
    waits = []
    for count in (1, 2, 3):
        chute = validator.want()
        miner.begin(chute)
        grant = (await listening(validator, count))[-1]
        validator.set_state(grant.launch_id, "active")
        await miner.watch()
        await miner.call(grant, b"exit")
        while miner.deployer.busy():
            await miner.watch()
        ((reason, wait_s),) = miner.backoff.entries().values()
        assert reason == "exit_7"
        waits.append(wait_s)
    assert waits == [10.0, 20.0, 40.0]
    assert [end.reason for end in miner.deployer.books.ends] == ["exit_7"] * 3


# Every step of a launch after its grant, as (who takes it, its name).
STEPS = [
    ("store", "put_launch"),
    ("launcher", "_check"),
    ("launcher", "_folder"),
    ("runtime", "known"),
    ("images", "get"),
    ("runtime", "prepare"),
    ("images", "used"),
    ("runtime", "start"),
    ("launcher", "_started"),
    ("runtime", "wait_ready"),
    ("relay", "register"),
    ("api", "report"),
]


@pytest.fixture
async def breaking(begin_life, monkeypatch):
    """Begin a life in which the first call of a step raises what nobody has foreseen."""

    async def start(who, name):
        validator, miner = await begin_life()
        launcher = miner.deployer._launcher
        owner = {
            "store": miner.store,
            "launcher": launcher,
            "runtime": miner.runtime,
            "images": launcher._images,
            "relay": miner.relay,
            "api": launcher._api,
        }[who]
        real, broken = getattr(owner, name), []

        def step(*args, **kwargs):
            if not broken:
                broken.append(name)
                raise ZeroDivisionError(f"in {name}")
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, step)
        return validator, miner

    return start


@pytest.mark.parametrize(("who", "name"), STEPS)
async def test_a_launch_that_dies_of_the_unforeseen_is_reported_at_once(breaking, who, name):
    """Whichever step breaks: gone with a reason, GPU free, nothing left, and not tried at once."""
    validator, miner = await breaking(who, name)
    chute = validator.want()
    miner.begin(chute)
    event = only(await gone(validator))
    assert event.reason == "miner_failed"
    assert event.detail.startswith("ZeroDivisionError in the miner")
    assert f"in {name}" not in event.detail  # what may name files of this host stays on it
    while miner.deployer._tasks:
        await asyncio.gather(*miner.deployer._tasks, return_exceptions=True)
        await asyncio.sleep(0)
    assert miner.deployer.busy() == {}
    assert miner.deployer.books.taken() == 0
    assert miner.store.launches() == ()
    assert miner.runtime.instances() == ()
    assert miner.backoff.waiting() == {(validator.hotkey, chute.chute_id)}


async def test_a_refusal_of_the_host_names_no_file_of_it(begin_life, monkeypatch):
    """The validator hears what it was, and not where."""
    validator, miner = await begin_life()

    async def start(spec):
        raise OSError(28, "No space left on device", "/srv/own/store")

    monkeypatch.setattr(miner.runtime, "start", start)
    miner.begin(validator.want())
    event = only(await gone(validator))
    assert event.reason == "host_failed"
    assert event.detail.startswith("No space left on device")
    assert "/srv" not in event.detail


async def test_an_ask_that_dies_of_the_unforeseen_frees_its_gpu(breaking):
    """Before a grant there is nothing to report; the chute is left alone for a while."""
    validator, miner = await breaking("api", "request_launch")
    chute = validator.want()
    miner.begin(chute)
    while miner.deployer._tasks:
        await asyncio.gather(*miner.deployer._tasks, return_exceptions=True)
        await asyncio.sleep(0)
    assert miner.deployer.running() == ()
    assert miner.backoff.waiting() == {(validator.hotkey, chute.chute_id)}


async def test_an_end_that_breaks_off_is_begun_again(begin_life, monkeypatch):
    """An engine's bug in the middle of an end keeps no GPU: the next looks try until it is gone."""
    validator, miner = await begin_life()
    miner.begin(validator.want())
    grant = only(await listening(validator))
    real, broken = miner.runtime.stop, []

    async def stop(launch_id, grace_s):
        if len(broken) < 2:
            broken.append(launch_id)
            raise ZeroDivisionError("in stop")
        await real(launch_id, grace_s)

    monkeypatch.setattr(miner.runtime, "stop", stop)
    assert await miner.call(grant, b"exit") == b""
    while miner.deployer.busy():
        with contextlib.suppress(ZeroDivisionError):
            await miner.watch()
    assert len(broken) == 2
    assert only(await gone(validator)).reason == "exit_7"


async def test_a_launch_whose_end_breaks_off_too_is_ended_by_the_next_look(breaking, monkeypatch):
    """Unforeseen twice: the first reason stays, and the GPU comes back with the watch."""
    validator, miner = await breaking("runtime", "wait_ready")
    real, broken = miner.runtime.stop, []

    async def stop(launch_id, grace_s):
        if not broken:
            broken.append(launch_id)
            raise ZeroDivisionError("in stop")
        await real(launch_id, grace_s)

    monkeypatch.setattr(miner.runtime, "stop", stop)
    miner.begin(validator.want())
    while not broken or miner.deployer._tasks:
        await asyncio.gather(*miner.deployer._tasks, return_exceptions=True)
        await asyncio.sleep(0)
    assert validator.events_of("gone") == []
    await miner.watch()
    event = only(await gone(validator))
    assert (event.reason, miner.deployer.busy()) == ("miner_failed", {})
    assert event.detail.startswith("ZeroDivisionError in the miner")


async def test_a_chute_that_overran_its_models_is_ended_with_the_reason(begin_life):
    """Its instances end undrained and are reported; those of other chutes stay."""
    validator, miner = await begin_life()
    chute, other = validator.want(1), validator.want(2)
    miner.begin(chute, 0)
    miner.begin(other, 1)
    await listening(validator, 2)
    miner.deployer.end_overrun(Key(validator.hotkey, chute.chute_id), "it holds 9 bytes of 8")
    event = only(await gone(validator))
    assert event.reason == "cache_overrun"
    assert "9 bytes of 8" in event.detail
    assert len(miner.deployer.busy()) == 1
    assert miner.backoff.waiting() == {(validator.hotkey, chute.chute_id)}


# Keeps how often its chute was launched here, where models go.
KEEPER = """
import os, pathlib
place = pathlib.Path(os.environ.get("HF_HOME", "/nowhere"))
kept = place / "launches"
before = kept.read_text() if kept.exists() else ""
if place.parent.is_dir():
    place.mkdir(exist_ok=True)
    kept.write_text(before + "x")
"""


async def test_a_chute_finds_what_its_last_launch_kept(begin_life, runner_command, tmp_path):
    """The same chute has its folder again, another its own, and the books say who uses which."""
    validator, miner = await begin_life(("-c", KEEPER + runner_command[1]))
    folders = Folders(tmp_path / "model-cache")
    cache = ModelCache(
        folders,
        Bounds(1 << 30, 1 << 29, 0),
        in_use=miner.deployer.books.using,
        overran=miner.deployer.end_overrun,
        clock=ManualClock(),
    )
    miner.deployer._launcher._cache = cache
    kept = []
    for count, number in enumerate((1, 1, 2), 1):
        chute = validator.want(number)
        miner.begin(chute)
        await listening(validator, count)
        grant = validator.grants[validator.events_of("listening")[-1][0]]
        files = (tmp_path / "model-cache").rglob("launches")
        kept.append(sorted(len(file.read_text()) for file in files))
        (folder,) = (one for one in cache.facts().folders if one.key.chute_id == chute.chute_id)
        assert folder.gpus == 1
        await miner.call(grant, b"exit")
        while miner.deployer.busy():
            await miner.watch()
        await cache.look()
    assert kept == [[1], [2], [1, 2]]
    assert [one.gpus for one in cache.facts().folders] == [0, 0]
    assert cache.facts().launches == {"cold": 2, "warm": 1}
    folders.close()
