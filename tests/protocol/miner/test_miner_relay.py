"""The relay on real sockets, with friends and strangers."""

import asyncio
import contextlib
import socket

import pytest

from chutes_core.miner.host import raise_open_files
from chutes_core.miner.relay import Relay, RelayLimits
from chutes_core.wire.sealing import PREAMBLE_BYTES, PROVEN, Preamble

LAUNCH = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
TICKET = b"t" * 32
WAIT_S = 60


class Instance:
    """An instance's port: keeps preambles, answers every chunk in capitals, then ends."""

    def __init__(self):
        self.preambles = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.port = 0

    async def serve(self, reader, writer):
        self.preambles.append(await reader.readexactly(PREAMBLE_BYTES))
        try:
            await self.reading.wait()
            while data := await reader.read(65536):
                writer.write(data.upper())
                await writer.drain()
            writer.write(b"<end>")
            await writer.drain()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def world(limits=None):
    relay, instance = Relay(limits), Instance()
    server = await asyncio.start_server(instance.serve, "127.0.0.1", 0)
    instance.port = server.sockets[0].getsockname()[1]
    door = socket.create_server(("127.0.0.1", 0))
    door.setblocking(False)
    await relay.start(door)
    relay.register(LAUNCH, ticket=TICKET, port=instance.port)
    try:
        yield relay, instance, door.getsockname()[1]
    finally:
        await relay.close()
        server.close()


def preamble(ticket=TICKET, launch_id=LAUNCH):
    return Preamble.build(ticket=ticket, launch_id=launch_id, generation=PROVEN)


async def dial(port, first=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    await writer.drain()
    return reader, writer


async def closed(reader):
    """True when the relay closes without a word."""
    try:
        return await asyncio.wait_for(reader.read(), WAIT_S) == b""
    except ConnectionError:
        return True


async def test_a_ticket_opens_the_way_and_the_preamble_goes_first():
    """With the right MAC the instance sees the very preamble and both speak."""
    async with world() as (relay, instance, port):
        hello = preamble().to_bytes()
        reader, writer = await dial(port, hello + b"first")
        assert await asyncio.wait_for(reader.readexactly(5), WAIT_S) == b"FIRST"
        writer.write(b"second")
        assert await asyncio.wait_for(reader.readexactly(6), WAIT_S) == b"SECOND"
        assert instance.preambles == [hello]
        assert relay.counts.carried == 1
        writer.close()


async def test_half_close_is_carried():
    """After the caller's end the instance may still answer, then both ends close."""
    async with world() as (_, _, port):
        reader, writer = await dial(port, preamble().to_bytes() + b"x")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b"X<end>"
        writer.close()


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        (preamble(ticket=b"w" * 32).to_bytes(), "bad_mac"),
        (preamble(launch_id=OTHER).to_bytes(), "unknown_launch"),
        (b"GET / HTTP/1.1\r\n".ljust(PREAMBLE_BYTES, b"x"), "bad_preamble"),
        (preamble().to_bytes()[:-1] + b"\x00", "bad_mac"),
    ],
    ids=["another ticket", "another launch", "no preamble", "an altered byte"],
)
async def test_strangers_get_no_word(opening, reason):
    """A wrong MAC, an unknown launch and another protocol are closed, and nothing is dialled."""
    async with world() as (relay, instance, port):
        reader, writer = await dial(port, opening)
        assert await closed(reader)
        assert relay.counts.refused == {reason: 1}
        assert instance.preambles == []
        writer.close()


async def test_silence_is_cut_at_its_deadline():
    """Who sends no preamble in time is closed."""
    async with world(RelayLimits(preamble_timeout_s=0.05)) as (relay, _, port):
        reader, writer = await dial(port, b"CHU1")
        assert await closed(reader)
        assert relay.counts.refused == {"preamble_timeout": 1}
        writer.close()


async def test_idle_connections_end():
    """A connection on which nothing moves is closed after the idle time."""
    async with world(RelayLimits(idle_s=0.1)) as (_, _, port):
        reader, writer = await dial(port, preamble().to_bytes())
        assert await closed(reader)
        writer.close()


async def test_who_leaves_while_it_is_dialled_for_leaves_nothing():
    """The caller ends right after its preamble: the way to the instance is cut too."""
    async with world() as (relay, _, port):
        for _ in range(20):
            _, writer = await dial(port, preamble().to_bytes())
            writer.transport.abort()
        reader, writer = await dial(port, preamble().to_bytes() + b"a")
        assert await asyncio.wait_for(reader.readexactly(1), WAIT_S) == b"A"
        writer.close()
        await asyncio.wait_for(relay.close(), WAIT_S)
        assert relay._proven == 0
        assert not relay._callers


async def test_many_bytes_both_ways_arrive_whole_and_in_order():
    """A stream that is longer than any buffer, sent and answered at once."""
    block = bytes(range(65, 91)) * 4096
    async with world() as (_, _, port):
        reader, writer = await dial(port, preamble().to_bytes())

        async def send():
            for _ in range(40):
                writer.write(block.lower())
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await asyncio.wait_for(reader.read(-1), WAIT_S) == block * 40 + b"<end>"
        await sending
        writer.close()


async def test_connections_of_a_launch_are_bounded():
    """One launch holds at most its number of connections."""
    async with world(RelayLimits(per_launch=1)) as (relay, _, port):
        first, writer = await dial(port, preamble().to_bytes() + b"a")
        assert await asyncio.wait_for(first.readexactly(1), WAIT_S) == b"A"
        second, other = await dial(port, preamble().to_bytes())
        assert await closed(second)
        assert relay.counts.refused == {"too_many_of_launch": 1}
        writer.close()
        other.close()


async def test_connections_are_bounded():
    """All launches together hold at most the relay's number of connections."""
    async with world(RelayLimits(connections=1)) as (relay, _, port):
        first, writer = await dial(port, preamble().to_bytes() + b"a")
        assert await asyncio.wait_for(first.readexactly(1), WAIT_S) == b"A"
        second, other = await dial(port, preamble().to_bytes())
        assert await closed(second)
        assert relay.counts.refused == {"too_many_connections": 1}
        writer.close()
        other.close()


async def test_silent_strangers_do_not_shut_friends_out():
    """When too many say nothing, the one that has been silent longest makes room."""
    async with world(RelayLimits(unproven=2, preamble_timeout_s=60)) as (_, _, port):
        oldest, first = await dial(port)
        _, second = await dial(port, b"C")
        friend, third = await dial(port, preamble().to_bytes() + b"a")
        assert await asyncio.wait_for(friend.readexactly(1), WAIT_S) == b"A"
        assert await closed(oldest)
        for writer in (first, second, third):
            writer.close()


async def test_unregistering_cuts_what_is_open():
    """When a launch ends its connections end, and no new one is let in."""
    async with world() as (relay, _, port):
        reader, writer = await dial(port, preamble().to_bytes() + b"a")
        await asyncio.wait_for(reader.readexactly(1), WAIT_S)
        relay.unregister(LAUNCH)
        assert await closed(reader)
        again, other = await dial(port, preamble().to_bytes())
        assert await closed(again)
        writer.close()
        other.close()


async def test_a_dead_instance_closes_the_caller():
    """When nobody listens behind the relay the caller is closed at once."""
    async with world() as (relay, _, port):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            dead = unused.getsockname()[1]
        relay.register(LAUNCH, ticket=TICKET, port=dead)
        reader, writer = await dial(port, preamble().to_bytes())
        assert await closed(reader)
        assert relay.counts.refused == {"instance_unreachable": 1}
        writer.close()


async def test_a_slow_instance_slows_its_caller_down():
    """The relay holds a bounded amount: a caller that sends more waits until the instance reads."""
    block, total = b"x" * 65536, 64 << 20
    async with world() as (_, instance, port):
        instance.reading.clear()
        reader, writer = await dial(port, preamble().to_bytes())
        sent = 0

        async def send():
            nonlocal sent
            while sent < total:
                writer.write(block)
                await writer.drain()
                sent += len(block)
            writer.write_eof()

        sending = asyncio.create_task(send())
        before = -1
        while sent != before:  # until nothing moves for a while
            before = sent
            await asyncio.wait({sending}, timeout=0.5)
        assert sent < total // 2
        instance.reading.set()
        received = 0
        while data := await asyncio.wait_for(reader.read(1 << 20), WAIT_S):
            received += len(data)
        await sending
        assert received == total + len(b"<end>")
        writer.close()


async def test_two_thousand_connections_are_held_and_all_answer():
    """With as many as the bound open at once each one still carries; one more is refused."""
    limit = raise_open_files()
    many, launches = 2000, 4
    if limit < 4 * many + 500:  # both ends of both legs are files of this process
        pytest.skip(f"at most {limit} open files")
    patient = RelayLimits(
        preamble_timeout_s=WAIT_S, dial_timeout_s=WAIT_S, connections=many
    )  # on a busy machine a batch may take longer than friends should
    async with world(patient) as (relay, instance, port):
        ids = [f"11111111-2222-3333-4444-00000000000{n}" for n in range(launches)]
        for launch_id in ids:
            relay.register(launch_id, ticket=TICKET, port=instance.port)
        held = []
        for begin in range(0, many, 50):  # no more at once than may be unproven
            batch = range(begin, begin + 50)
            hellos = [preamble(launch_id=ids[n % launches]).to_bytes() for n in batch]
            held += await asyncio.gather(*(dial(port, hello + b"a") for hello in hellos))
            firsts = (reader.readexactly(1) for reader, _ in held[begin:])
            assert set(await asyncio.wait_for(asyncio.gather(*firsts), WAIT_S)) == {b"A"}
        assert relay.counts.carried == many
        over, last = await dial(port, preamble().to_bytes())
        assert await closed(over)
        for reader, writer in held[::97]:
            writer.write(b"still")
            assert await asyncio.wait_for(reader.readexactly(5), WAIT_S) == b"STILL"
        for _, writer in held:
            writer.close()
        last.close()
