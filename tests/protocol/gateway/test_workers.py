"""Several gateway processes on one port: what holds for one holds for all together."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest
from crewed import CrewHouse, crewed
from gateway_stand_in import Incoming

from chutes_core.validator.domain.money import Rate
from chutes_core.validator.gateway.limits import GatewayLimits

pytestmark = pytest.mark.timeout(400)
CALL = "/c/bob-echo/api/echo"
CALLERS = 8


async def echo(call: Incoming) -> None:
    await call.answer(call.body)


async def ask(client: httpx.AsyncClient, body: bytes = b"x") -> httpx.Response:
    return await client.post(CALL, content=body)


async def test_calls_are_spread_and_each_answered_one_is_in_the_ledger_once(
    tmp_path: Path, instance
):
    """Connections reach both workers, and the main process settles what both recorded."""
    async with crewed(tmp_path) as house:
        await house.serve(await instance(echo), concurrency=64)
        said = await called_by_all(house)
        await house.until(lambda: house.crew.stats().get("outcome_ok") == len(said))
        shown = house.crew.metrics()
        for histogram in ("call_seconds", "first_byte_seconds"):
            assert f"chutes_gateway_{histogram}_count {len(said)}\n" in shown
        assert f"chutes_gateway_journal_lag_records {len(said)}\n" in shown
        await house.settle()
        assert "chutes_gateway_journal_lag_records 0\n" in house.crew.metrics()
        assert sorted(house.recorded()) == sorted(said)
        assert {one.worker for one in house.store.invocations.between(0, 2**62)} == {
            "gateway-1",
            "gateway-2",
        }
        await house.until(lambda: not any(house.crew.leases._leased.values()))  # idle: all returned
        assert house.crew.leases.free(house.owner_id) == house.balance()


async def called_by_all(house: CrewHouse) -> list[str]:
    """Call until each worker has answered; return the invocations."""
    said: list[str] = []
    outcomes = house.crew.stats
    while not all(member.stats.get("outcome_ok") for member in house.members()):
        async with house.clients(CALLERS) as clients:
            answers = await asyncio.gather(*map(ask, clients))
        assert {answer.status_code for answer in answers} == {200}
        said += [answer.headers["x-chutes-invocationid"] for answer in answers]
        while outcomes().get("outcome_ok") != len(said):
            await house.reported()
    return said


async def test_a_worker_killed_under_calls_loses_no_answered_one(tmp_path: Path, instance):
    """kill -9 of a worker: what was answered is charged once, the other goes on, one is started."""
    async with crewed(tmp_path) as house:
        one = await instance(echo)
        await house.serve(one, concurrency=64)
        before = house.balance()
        answered: list[str] = []
        over = asyncio.Event()

        async def caller(number: int) -> None:
            while not over.is_set():
                async with house.clients(1) as (client,):
                    try:
                        response = await ask(client, b"%d" % number)
                    except httpx.TransportError:
                        continue
                    if response.status_code == 200:
                        answered.append(response.headers["x-chutes-invocationid"])

        async def until_answered(more: int) -> None:
            goal = len(answered) + more
            await house.until(lambda: len(answered) >= goal)

        calling = [asyncio.ensure_future(caller(number)) for number in range(CALLERS)]
        await until_answered(40)
        victim = house.crew.pids()["gateway-1"]
        os.kill(victim, signal.SIGKILL)
        await house.until(lambda: house.crew.pids().get("gateway-1", victim) != victim)
        await house.until(lambda: house.crew._members["gateway-1"].joined)
        await until_answered(40)
        over.set()
        await asyncio.gather(*calling)
        assert house.crew.stats()["worker_deaths"] >= 1
        await settled(house, answered)
        records = [r for r in house.store.invocations.between(0, 2**62) if r.charged]
        charges = [
            Rate(r.rate_id, r.rao_per_hour, r.hold_rao).charge_rao(r.usage_us) for r in records
        ]
        assert before - house.balance() == sum(charges)
        assert len({connection.nonce for connection in one.preambles}) == len(one.preambles)


async def settled(house: CrewHouse, answered: list[str]) -> None:
    """Settle until all that was answered is in the store; it is there once."""
    while not set(answered) <= set(house.recorded()):
        await house.reported()
        await house.settle()
    recorded = house.recorded()
    assert len(set(recorded)) == len(recorded)
    assert set(answered) <= set(recorded)


async def test_a_revoked_key_is_refused_by_every_worker_at_once(tmp_path: Path, instance):
    """Once a picture counts as swapped, no worker decides by an older one."""
    async with crewed(tmp_path) as house:
        await house.serve(await instance(echo), concurrency=64)
        await called_by_all(house)
        house.world.keys.clear()
        await house.pictures.refresh()
        async with house.clients(4 * CALLERS) as clients:
            answers = await asyncio.gather(*map(ask, clients))
        assert {answer.status_code for answer in answers} == {401}


async def test_a_balance_is_not_overspent_by_two_workers(tmp_path: Path, instance):
    """Of calls that come to both workers at once, as many run as the balance covers."""
    covered, callers = 5, 24
    release = asyncio.Event()
    running = asyncio.Semaphore(0)

    async def waits(call: Incoming) -> None:
        running.release()
        await release.wait()
        await call.answer(b"done")

    hold_rao = 60_000_000
    async with crewed(tmp_path, rao=covered * hold_rao + hold_rao // 2) as house:
        await house.serve(await instance(waits), concurrency=64)
        async with house.clients(callers) as clients:
            calling = [asyncio.ensure_future(ask(client)) for client in clients]
            for _ in range(covered):
                await asyncio.wait_for(running.acquire(), 60)
            refused = 0
            for first in asyncio.as_completed(calling):
                response = await first
                if response.status_code == 402:
                    refused += 1
                    assert response.json()["code"] == "insufficient_balance"
                    if refused == callers - covered:
                        release.set()
            answers = [one.result().status_code for one in calling]
        assert (answers.count(200), answers.count(402)) == (covered, callers - covered)
        assert running.locked()


async def test_an_instance_has_no_more_calls_than_slots_from_all_workers(tmp_path: Path, instance):
    """Its concurrency holds over all workers, and none of its slots lies idle with one of them."""
    slots, callers = 3, 24
    release = asyncio.Event()
    now, most = 0, 0

    async def waits(call: Incoming) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await release.wait()
        now -= 1
        await call.answer(b"done")

    async with crewed(tmp_path) as house:
        await house.serve(await instance(waits), concurrency=slots)
        async with house.clients(callers) as clients:
            calling = [asyncio.ensure_future(ask(client)) for client in clients]
            refused = 0
            for first in asyncio.as_completed(calling):
                response = await first
                if response.status_code == 429:
                    refused += 1
                    assert response.json()["code"] == "at_capacity"
                    if refused == callers - slots:
                        release.set()
            assert (refused, most) == (callers - slots, slots)


async def test_a_key_makes_no_more_calls_than_its_rate_by_all_workers(tmp_path: Path, instance):
    """The main process gives calls of a key out in slices, so that the burst is one burst."""
    limits = GatewayLimits(cold_wait_s=0.0, key_calls_per_s=1, key_burst=8)
    async with crewed(tmp_path, limits=limits) as house:
        await house.serve(await instance(echo), concurrency=64)
        began = asyncio.get_running_loop().time()
        async with house.clients(24) as clients:
            answers = await asyncio.gather(*map(ask, clients))
        took_s = asyncio.get_running_loop().time() - began
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 429} or took_s > 16
        assert codes.count(200) <= 8 + took_s + 1


async def test_the_control_plane_answers_through_a_worker(tmp_path: Path):
    """What is no call is answered by the main process, whichever worker gets it."""
    body = bytes(range(256)) * 4096
    async with crewed(tmp_path) as house, house.clients(CALLERS) as clients:
        answers = await asyncio.gather(
            *(client.post("/users/me?x=%2F", content=body) for client in clients)
        )
        assert {a.text for a in answers} == {f"POST /users/me {len(body)} 127.0.0.1"}


async def test_a_caller_of_the_control_plane_who_leaves_is_noticed(tmp_path: Path):
    """The application hears of it when it next sends, and what it still sends goes nowhere."""
    left = asyncio.Event()

    async def streams(scope, receive, send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 300_000, "more_body": True})
        assert gone.result()["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"y", "more_body": False})
        left.set()

    async with crewed(tmp_path, app=streams) as house, house.clients(1) as (client,):
        async with client.stream("GET", "/logs") as response:
            size = 0
            async for piece in response.aiter_raw():
                assert set(piece) == {ord("x")}
                size += len(piece)
                if size >= 600_000:
                    break
        await asyncio.wait_for(left.wait(), 60)


async def test_a_byte_stream_goes_through_a_worker_and_ends_with_its_caller(tmp_path: Path):
    """After the main process's 101 bytes pass both ways, until the caller goes."""
    left = asyncio.Event()

    async def echoes(scope, receive, send) -> None:
        assert "chutes.stream" in scope["extensions"]
        await receive()
        await send({"type": "http.response.start", "status": 101, "headers": []})
        while (message := await receive())["type"] == "http.request":
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        left.set()

    async with crewed(tmp_path, app=echoes) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(house.url).port)
        writer.write(
            b"GET /s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: chutes-stream\r\n\r\n"
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 101 ")
        sent = bytes(range(256)) * 8192
        writer.write(sent)
        assert await asyncio.wait_for(reader.readexactly(len(sent)), 60) == sent
        writer.transport.abort()
        await asyncio.wait_for(left.wait(), 60)


async def test_a_worker_that_is_told_to_stop_finishes_its_calls(tmp_path: Path, instance):
    """SIGTERM: the call that runs is answered, and another worker process takes the place."""
    release = asyncio.Event()
    began = asyncio.Event()

    async def waits(call: Incoming) -> None:
        began.set()
        await release.wait()
        await call.answer(b"done")

    async with crewed(tmp_path) as house:
        await house.serve(await instance(waits))
        async with house.clients(1) as (client,):
            calling = asyncio.ensure_future(ask(client))
            await asyncio.wait_for(began.wait(), 60)
            await house.until(lambda: sum(m.stats["in_flight"] for m in house.members()) == 1)
            (busy,) = (m.name for m in house.members() if m.stats["in_flight"])
            pid = house.crew.pids()[busy]
            os.kill(pid, signal.SIGTERM)
            release.set()
            assert (await calling).text == "done"
        await house.until(lambda: house.crew.pids().get(busy, pid) != pid)


async def test_what_is_spent_outside_of_calls_counts_against_all_workers(tmp_path: Path, instance):
    """A gift sees what workers have leased, and they see the gift: together no more is spent."""
    hold_rao = 60_000_000
    async with crewed(tmp_path, rao=2 * hold_rao) as house:
        await house.serve(await instance(echo), concurrency=64)
        with house.crew.spending() as spend:
            assert spend.hold(house.owner_id, hold_rao + 1) == 0
            async with house.clients(CALLERS) as clients:
                answers = await asyncio.gather(*map(ask, clients))
            assert {answer.status_code for answer in answers} == {402}
        async with house.clients(1) as (client,):
            assert (await ask(client)).status_code == 200
