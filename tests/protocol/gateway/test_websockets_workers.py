"""Websockets through several gateway processes on one port."""

import asyncio
import os
import signal

import pytest
from crewed import crewed
from test_workers import settled
from websocket_stand_in import PATIENCE_S, PLACE, echo, instance_of, with_talk
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.timeout(400)


def dialled(house):
    return connect(
        f"ws{house.url.removeprefix('http')}{PLACE}",
        additional_headers=house.auth,
        proxy=None,
        open_timeout=PATIENCE_S,
        close_timeout=PATIENCE_S,
    )


async def talked(socket):
    await socket.send("hello")
    assert await asyncio.wait_for(socket.recv(), PATIENCE_S) == "hello"
    return socket.response.headers["x-chutes-invocationid"]


async def test_each_is_one_charge_whichever_worker_carries_it(tmp_path):
    """By both workers; one that is told to stop ends its own in order, and they are charged."""
    async with crewed(tmp_path) as house, instance_of(echo, concurrency=64) as one:
        with_talk(house.world, house.chute)
        await house.serve(one, concurrency=64)
        before = house.balance()
        said = []
        carried = house.crew.stats
        while not all(member.stats.get("outcome_ok") for member in house.members()):
            sockets = await asyncio.gather(*(dialled(house) for _ in range(8)))
            said += await asyncio.gather(*map(talked, sockets))
            await asyncio.gather(*(socket.close() for socket in sockets))
            while carried().get("outcome_ok") != len(said):
                await house.reported()
        open_ones = [await dialled(house) for _ in range(4)]
        said += [await talked(socket) for socket in open_ones]
        for pid in house.crew.pids().values():
            os.kill(pid, signal.SIGTERM)
        for socket in open_ones:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), PATIENCE_S)
        await settled(house, said)
        records = house.store.invocations.between(0, 2**62)
        assert {(record.outcome, record.status) for record in records} == {("ok", 101)}
        assert before - house.balance() == sum(
            house.chute.rate.charge_rao(r.usage_us) for r in records
        )
