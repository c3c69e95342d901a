"""The long runs of the real validator, short: killed at random, left by its callers, at work.

tests/bench/kill.py, vanish.py and soak.py do the same for as long as asked; what they printed is in
docs/measurements. Each of them compares callers, instances and ledger at its end, and raises where
they differ.
"""

import pytest

from tests.bench import kill, soak, vanish
from tests.bench.callers import Callers, until
from tests.bench.loop_lag import build, context_of, person
from tests.bench.probe import ask
from tests.bench.stage import stage

pytestmark = pytest.mark.timeout(600)
SEED = 7


async def test_killed_at_random_under_calls(tmp_path):
    """Ten SIGKILLs and a full disk: each answered call is charged once, no key's nonce repeats."""
    print(f"seed {SEED}")
    seen = await kill.run(tmp_path, kills=10, seed=SEED, life_s=(0.0, 0.6))
    assert seen["kills"] == 10
    assert (seen["lost"], seen["charged_twice"], seen["repeated_keys"]) == (0, 0, 0)
    assert seen["answered"] > 20
    assert seen["key_nonce_pairs"] > seen["answered"]
    assert seen["disk"]["recovered"]
    assert "503 journal_full" in seen["disk"]["codes"]


async def test_workers_and_their_parent_killed_under_calls(tmp_path):
    """Two workers on one port: a worker's end and the validator's lose and double nothing."""
    seen = await kill.run(
        tmp_path, kills=3, seed=SEED, workers=2, life_s=(0.0, 0.6), of_workers={0, 2}
    )
    assert (seen["kills"], seen["worker_kills"]) == (1, 2)
    assert (seen["lost"], seen["charged_twice"], seen["repeated_keys"]) == (0, 0, 0)
    assert seen["answered"] > 20
    assert seen["disk"]["recovered"]
    assert "503 journal_full" in seen["disk"]["codes"]


async def test_clients_that_vanish_leave_nothing(tmp_path):
    """At every stage of a call and in every way: counters at zero, descriptors as before."""
    clients = 8 * len(vanish.KINDS)
    seen = await vanish.run(tmp_path, clients=clients, at_once=60, seed=SEED)
    assert sum(seen["kinds"].values()) == clients
    assert seen["records"] == seen["calls_that_reached_an_instance"] > 0
    assert seen["after"]["own_fds"] <= seen["before"]["own_fds"] + soak.OPENED_ONCE


async def test_steady_calls_open_nothing_that_stays_open(tmp_path):
    """Half of the greatest load: descriptors stay; memory's trend needs the hour of the script."""
    seen = await soak.run(tmp_path, seconds=60, calibrate_s=5, seed=SEED)
    assert seen["own_fds"]["median"] <= seen["before"]["own_fds"] + 8  # files that are open briefly
    assert seen["after"]["own_fds"] <= seen["before"]["own_fds"] + soak.OPENED_ONCE
    assert seen["after"]["callers"] == 0
    assert seen["steady"]["cut"] == 0
    # After a stall of the machine an open load comes at once: it may be refused, with a reason.
    assert set(seen["steady"]["statuses"]) <= {"200", "429", "503"}
    assert seen["answered"] > 1000
    assert seen["lost"] == seen["charged_twice"] == 0


async def test_nothing_that_blocks_runs_on_the_loop(tmp_path, monkeypatch):
    """Calls, settlement, renewals, people and a build: no SQLite, sleep or sync on its thread."""
    monkeypatch.setenv("BENCH_BUILD_LINES", "100")
    monkeypatch.setenv("BENCH_ARCHIVE_BYTES", str(16 * 1024 * 1024))
    often = {"RENEW_SECONDS": "1", "POLL_SECONDS": "1"}
    async with stage(tmp_path, extra=often) as made:
        await made.lives.begin()
        await made.lives.serving()
        await ask(made.lives.probe)  # what it did before it served is its start's
        load = Callers(made.lives.port, made.filled.api_key, seed=SEED, count=4, pause_s=0.01)
        async with person(made) as client:
            await build(client, context_of(2 * 1024 * 1024), tag="1")
            key = await client.post("/api_keys/", json={"name": "k", "admin": True})
            assert key.status_code == 200, key.text
            for path in ("/users/me", "/users/me/statement", "/chutes/", "/images/", "/health"):
                answer = await client.get(path)
                assert answer.status_code == 200, path
            gone = await client.delete(f"/api_keys/{key.json()['api_key_id']}")
            assert gone.status_code == 200, gone.text
        await until(lambda: len(load.seen.answered) > 50, "answers")
        await until(lambda: made.book.renewals > 2, "renewals")
        await load.stop()
        told = await ask(made.lives.probe)
        assert told["blocking"] == {}
        assert await made.lives.stop() == 0
