"""What is carried behind a 101 is the same bytes, both ways, however they are cut."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websocket_stand_in import PATIENCE_S, Ran, handshake, socket_house, switching

from chutes_core.runner.passthrough import Passthrough

# A piece is so many times this text: short ones, and some that are more than a frame carries.
CHUNKS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([1, 1, 1, 7, 3000, 9000])),
    max_size=8,
)


@settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(up=CHUNKS, down=CHUNKS, at_once=st.booleans(), with_head=st.booleans())
def test_any_pieces_arrive_whole_and_in_order(up, down, at_once, with_head):
    """Sent with the handshake or behind its answer, by both at once, in any sizes."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(exchanged(Path(folder), whole(up), whole(down), at_once, with_head))


def whole(chunks):
    return [piece * times for piece, times in chunks]


async def sent(writer, pieces):
    for piece in pieces:
        writer.write(piece)
        await writer.drain()


async def exchanged(folder, up, down, at_once, with_head):
    """Have a caller send ``up`` and a server send ``down``; each must get the other's bytes."""
    got = asyncio.get_running_loop().create_future()

    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        first, rest = (down[:1], down[1:]) if with_head else ([], down)
        writer.write(b"".join((switching(), *first)))
        coming = asyncio.ensure_future(reader.readexactly(sum(map(len, up))))
        await sent(writer, rest)
        got.set_result(await coming)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        one = Ran(("/api/talk", Passthrough(server.sockets[0].getsockname()[1], "/raw")))
        await one.listen()
        async with socket_house(folder) as house:
            house.serve(one)
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(handshake(house.key))
            if not at_once:
                await asyncio.wait_for(reader.readuntil(b" 101 "), PATIENCE_S)
            sending = asyncio.ensure_future(sent(writer, up))
            answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
            await sending
            writer.close()
            (record,) = await house.recorded()
        await one.close()
    assert await asyncio.wait_for(got, PATIENCE_S) == b"".join(up)
    assert answer.partition(b"\r\n\r\n")[2] == b"".join(down)
    assert record.bytes_in == sum(map(len, up))
    assert record.bytes_out == sum(map(len, down))
