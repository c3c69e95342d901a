"""Websockets through the gateway: real client, gateway, runner's executor, real server."""

import asyncio
import json

import pytest
from gateway_stand_in import Instance
from websocket_stand_in import (
    PATIENCE_S,
    PLACE,
    Ran,
    echo,
    handshake,
    instance_of,
    socket_house,
    switching,
)
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chutes_core.runner.passthrough import Passthrough
from chutes_core.validator.domain.accounts import Scope
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.gateway.limits import GatewayLimits


@pytest.fixture
def limits():
    return GatewayLimits(cold_wait_s=0.0, key_burst=10**6)


@pytest.fixture
async def house(tmp_path, limits):
    async with socket_house(tmp_path, limits) as made:
        yield made


async def received(socket):
    return await asyncio.wait_for(socket.recv(), PATIENCE_S)


@pytest.mark.parametrize(
    ("host", "path"), [("x.test", PLACE), ("bob-echo.chutes.test", "/api/talk")]
)
async def test_messages_pass_both_ways_and_one_call_is_recorded(house, host, path):
    """Text, binary and long messages come back; the call is charged for its time, once."""
    async with instance_of(echo, compression=None) as one:
        house.serve(one)
        async with house.connect(path, host=host) as socket:
            for message in ("hello", b"\0\1\2", "x" * 300_000, ""):
                await socket.send(message)
                assert await received(socket) == message
            invocation_id = socket.response.headers["x-chutes-invocationid"]
            assert "queue" in socket.response.headers["x-chutes-timing"]
        (record,) = await house.recorded()
    assert (record.invocation_id, record.outcome, record.status) == (invocation_id, "ok", 101)
    assert record.usage_us > 0
    assert record.bytes_in > 300_000
    assert record.bytes_out > 300_000
    assert house.gateway.taken_rao(house.owner_id) > 0


async def test_the_server_sees_the_handshake_without_credentials(house):
    """Path, query, subprotocols and the chute's headers arrive; key, cookie, addresses do not."""
    seen = []

    async def talk(socket):
        seen.append(socket.request)
        await socket.send("seen")

    async with instance_of(talk, subprotocols=["chat"]) as one:
        house.serve(one)
        headers = {**house.auth, "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "X-Mine": "1"}
        connecting = house.connect(
            f"{PLACE}?a=1&b=%20", additional_headers=headers, subprotocols=["chat"]
        )
        async with connecting as socket:
            assert await received(socket) == "seen"
            assert socket.subprotocol == "chat"
            assert "server" not in socket.response.headers
    (request,) = seen
    assert request.path == "/spoken?a=1&b=%20"
    names = {name.lower() for name in request.headers}
    assert not names & {"authorization", "cookie", "x-forwarded-for", "content-length"}
    assert (request.headers["X-Mine"], request.headers["X-Chute"]) == ("1", "own")
    assert request.headers["Host"].startswith("127.0.0.1:")


async def test_a_servers_refusal_is_an_ordinary_answer(house):
    """What the server says in place of 101 reaches the caller, and the connection is closed."""

    def refuse(connection, request):
        return connection.respond(403, "not you\n")

    async with instance_of(echo, process_request=refuse) as one:
        house.serve(one)
        with pytest.raises(InvalidStatus) as caught:
            await house.connect().__aenter__()
        answer = caught.value.response
        assert (answer.status_code, answer.body) == (403, b"not you\n")
        (record,) = await house.recorded()
    assert (record.outcome, record.status) == ("ok", 403)


async def test_no_server_behind_the_chute_is_502(house):
    """Nothing listens where the passthrough cord leads: said so, and not charged."""
    one = Ran(("/api/talk", Passthrough(1, "/x")))
    await one.listen()
    house.serve(one)
    with pytest.raises(InvalidStatus) as caught:
        await house.connect().__aenter__()
    await one.close()
    answer = caught.value.response
    document = json.loads(answer.body)
    assert (answer.status_code, document["code"]) == (502, "passthrough_unreachable")
    assert (await house.recorded())[0].outcome == "chute_error"


@pytest.mark.parametrize("nonsense", [b"no HTTP at all\r\n\r\n", b"", b"HTTP/1.1 101 Ok\r\n\r\n"])
async def test_a_server_that_is_none_is_the_chutes_error(house, nonsense):
    """What is no HTTP, or switches to no websocket, is 500 and the chute's fault."""

    async def say(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(nonsense)
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    one = Ran(("/api/talk", Passthrough(server.sockets[0].getsockname()[1], "/x")))
    await one.listen()
    house.serve(one)
    with pytest.raises(InvalidStatus) as caught:
        await house.connect().__aenter__()
    assert caught.value.response.status_code == 500
    server.close()
    await one.close()


async def test_a_caller_who_leaves_ends_the_instances_side(house):
    """The server sees its connection end, the slot is free, and the time is charged."""
    ended = asyncio.Event()

    async def talk(socket):
        await socket.send("here")
        await socket.wait_closed()
        ended.set()

    async with instance_of(talk) as one:
        house.serve(one)
        socket = await house.connect().__aenter__()
        assert await received(socket) == "here"
        socket.transport.abort()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        (record,) = await house.recorded()
    assert (record.outcome, record.status) == ("client_gone", 101)


async def test_an_instance_that_dies_cuts_the_caller(house):
    """It is a failure, and costs nothing."""
    async with instance_of(echo) as one:
        house.serve(one)
        async with house.connect() as socket:
            await socket.send("a")
            await received(socket)
            one.cut_all()
            with pytest.raises(ConnectionClosed):
                await received(socket)
        (record,) = await house.recorded()
    assert (record.outcome, record.status) == ("failed", 101)


async def test_a_server_that_closes_ends_the_call(house):
    """Its close frame and reason reach the caller, and the call is whole."""

    async def talk(socket):
        await socket.close(4001, "enough")

    async with instance_of(talk) as one:
        house.serve(one)
        async with house.connect() as socket:
            with pytest.raises(ConnectionClosed) as caught:
                await received(socket)
        (record,) = await house.recorded()
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough")
    assert record.outcome == "ok"


async def test_an_instance_that_ends_closes_its_websockets(house):
    """Draining gives them its grace and then ends them: the call is whole, and paid."""
    async with instance_of(echo) as one:
        house.serve(one)
        async with house.connect() as socket:
            await socket.send("a")
            await received(socket)
            await one.executor.drain(0.0)
            with pytest.raises(ConnectionClosed):
                await received(socket)
        (record,) = await house.recorded()
    assert record.outcome == "ok"


async def test_a_slot_is_taken_as_long_as_it_is_open(house):
    """Of an instance with one slot a second caller hears at_capacity, and has it afterwards."""
    async with instance_of(echo, concurrency=1) as one:
        house.serve(one, concurrency=1)
        async with house.connect() as socket:
            await socket.send("a")
            await received(socket)
            with pytest.raises(InvalidStatus) as caught:
                await house.connect().__aenter__()
            assert caught.value.response.status_code == 429
        await house.quiet()
        async with house.connect() as socket:
            await socket.send("b")
            assert await received(socket) == "b"


@pytest.mark.parametrize(
    "limits", [GatewayLimits(cold_wait_s=0.0, max_websockets_per_key=2)], ids=["two"]
)
async def test_a_key_has_so_many_open_at_once(house):
    """One more is 429 too_many_websockets; another key is not concerned."""
    async with instance_of(echo) as one:
        house.serve(one)
        other = {"authorization": f"Bearer {house.world.key(house.owner_id)}"}
        house.swap()
        async with house.connect(), house.connect():
            with pytest.raises(InvalidStatus) as caught:
                await house.connect().__aenter__()
            assert json.loads(caught.value.response.body)["code"] == "too_many_websockets"
            assert "retry-after" in caught.value.response.headers
            async with house.connect(additional_headers=other):
                pass


@pytest.mark.parametrize(
    "limits", [GatewayLimits(cold_wait_s=0.0, idle_timeout_s=0.3)], ids=["short"]
)
async def test_one_that_idles_is_closed_on_its_callers_account(house):
    """Without a byte in either direction it holds a slot for nothing."""
    async with instance_of(echo, ping_interval=None) as one:
        house.serve(one)
        async with house.connect(ping_interval=None) as socket:
            with pytest.raises(ConnectionClosed):
                await received(socket)
        (record,) = await house.recorded()
    assert record.outcome == "client_gone"


@pytest.mark.parametrize(
    "limits", [GatewayLimits(cold_wait_s=0.0, idle_timeout_s=0.5)], ids=["short"]
)
async def test_a_caller_who_takes_nothing_is_cut(house):
    """The instance is read no faster than its caller reads, and not for ever: it is no failure."""
    sent = 0

    async def talk(socket):
        nonlocal sent
        while True:
            await socket.send(bytes(64 * 1024))
            sent += 1

    async with instance_of(talk, compression=None, ping_interval=None) as one:
        house.serve(one)
        async with house.connect(ping_interval=None, max_queue=1) as socket:
            (record,) = await house.recorded()
            socket.transport.abort()
    assert record.outcome == "client_gone"
    assert sent * 64 * 1024 < 64 * 1024 * 1024


async def talks_for_ever(socket):
    while True:
        await socket.send("on and on")
        await received(socket)


async def test_it_ends_with_its_paid_time(house):
    """A call runs as long as its hold pays for; what it used is charged."""
    rate = Rate("rate-short", 3_600_000_000, 3_000_000)  # three seconds
    house.change(rate=rate)
    async with instance_of(echo) as one:
        house.serve(one)
        async with house.connect() as socket:
            with pytest.raises(ConnectionClosed):
                await talks_for_ever(socket)
        (record,) = await house.recorded()
    assert record.outcome == "client_gone"
    assert record.usage_us >= 2_500_000


async def test_one_that_is_open_when_the_server_stops_is_closed_and_paid(tmp_path):
    """It ends at once, in an orderly way, with its record, and does not hold the stop up."""
    async with instance_of(echo) as one, socket_house(tmp_path, grace_s=60.0) as house:
        house.serve(one)
        async with house.connect() as socket:
            await socket.send("a")
            await received(socket)
            house.server.should_exit = True
            with pytest.raises(ConnectionClosed):
                await received(socket)
        (record,) = await house.recorded()
    assert (record.outcome, record.status) == ("ok", 101)


@pytest.mark.parametrize("said", ["wrong accept", "no accept", "interim"])
async def test_an_answer_of_101_that_is_no_websockets_is_502(house, said):
    """Nothing of it reaches the caller, and the instance has failed."""
    headers = {"wrong accept": (("sec-websocket-accept", "x"),)}.get(said, ())

    async def answer(call):
        await call.start(101 if said != "interim" else 102, headers)
        await call.until_left()

    one = Instance(answer)
    await one.listen()
    house.serve(one)
    with pytest.raises(InvalidStatus) as caught:
        await house.connect().__aenter__()
    await one.close()
    assert caught.value.response.status_code == 502
    assert json.loads(caught.value.response.body)["code"] == "instance_failed"


async def test_an_ordinary_call_never_switches(house):
    """101 in answer to a call that asked for nothing is a failure of the instance."""

    async def answer(call):
        assert call.head.upgrade is None
        assert b"upgrade" not in call.head.model_dump_json().encode()
        await call.start(101, (("sec-websocket-accept", "x"),))
        await call.until_left()

    one = Instance(answer)
    await one.listen()
    house.serve(one)
    assert (await house.post()).status_code == 502
    await one.close()


async def test_an_older_runner_refuses_clearly(house):
    """It does not know the CALL's new field; the caller is told what to do, and pays nothing."""

    async def answer(call):
        await call.error("bad_order")
        await call.until_left()

    one = Instance(answer)
    await one.listen()
    house.serve(one)
    for _ in range(4):  # more often than a breaker lets an instance fail
        with pytest.raises(InvalidStatus) as caught:
            await house.connect().__aenter__()
        document = json.loads(caught.value.response.body)
        assert caught.value.response.status_code == 501
        assert document["code"] == "websocket_unsupported"
        assert "chutes build" in document["hint"]
    assert await house.recorded() == []
    await one.close()


async def test_a_refused_handshake_goes_to_another_instance_before_101(house):
    """While nothing but the handshake was sent, the next instance is asked, as for any call."""

    async def answer(call):
        await call.error("draining")
        await call.until_left()

    bad = Instance(answer)
    await bad.listen()
    async with instance_of(echo) as one:
        house.serve(bad, one)
        for _ in range(6):
            async with house.connect() as socket:
                await socket.send("a")
                assert await received(socket) == "a"
    await bad.close()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/c/bob-echo/api/look", 404, "no_websocket"),
        ("/c/bob-echo/api/none", 404, "cord_not_found"),
        ("/c/nobody/api/talk", 404, "chute_not_found"),
        ("/v1/chat/completions", 404, "no_websocket"),
        ("/v1/models", 404, "no_websocket"),
    ],
)
async def test_where_no_websocket_is_served(house, path, status, code):
    """A function's cord, and what is called by model, carry none."""
    with pytest.raises(InvalidStatus) as caught:
        await house.connect(path).__aenter__()
    answer = caught.value.response
    assert (answer.status_code, json.loads(answer.body)["code"]) == (status, code)


async def test_key_scope_and_balance_are_asked_as_for_any_call(house):
    """401, 403 and 402 in place of 101; nothing reaches the instance."""
    stranger = house.world.user(spendable_rao=0)
    narrow = house.world.key(house.owner_id, admin=False, scopes=(Scope("images", "read", None),))
    poor = house.world.key(stranger)
    house.change(public=True)
    for key, status in (("nonsense", 401), (narrow, 403), (poor, 402)):
        with pytest.raises(InvalidStatus) as caught:
            await house.connect(additional_headers={"X-Api-Key": key}).__aenter__()
        assert caught.value.response.status_code == status
    assert await house.recorded() == []


async def test_the_record_is_there_before_the_end_is(house):
    """When the caller sees the connection close, the call is in the journal; not before."""
    async with instance_of(echo) as one:
        house.serve(one)
        async with house.connect() as socket:
            await socket.send("a")
            await received(socket)
            assert house.journal.last_sequence == 0
            await socket.close()
            assert house.journal.last_sequence == 1


@pytest.mark.parametrize(
    "limits", [GatewayLimits(cold_wait_s=0.0, idle_timeout_s=0.5)], ids=["short"]
)
async def test_a_server_that_takes_nothing_holds_its_caller_back(house):
    """The caller is read no faster than the server reads, and not for ever."""
    over = asyncio.Event()

    async def deaf(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()
        writer.write(switching())
        await over.wait()
        writer.transport.abort()

    async with await asyncio.start_server(deaf, "127.0.0.1", 0) as server:
        one = Ran(("/api/talk", Passthrough(server.sockets[0].getsockname()[1], "/x")))
        await one.listen()
        house.serve(one)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(handshake(house.key))
        await reader.readuntil(b" 101 ")
        size = 64 * 1024 * 1024
        writer.write(bytes(size))  # more than all buffers on the way hold
        (record,) = await house.recorded()
        over.set()
        writer.transport.abort()
        await one.close()
    assert record.outcome == "client_gone"
    assert record.bytes_in < size


LEAVERS = 30
MANY = GatewayLimits(cold_wait_s=0.0, key_burst=10**6, max_websockets_per_key=LEAVERS)


@pytest.mark.parametrize("limits", [MANY], ids=["many"])
async def test_callers_who_vanish_leave_nothing(house):
    """Cut before the 101, at it, or amid messages: no slot, no count, no connection stays."""
    ended = asyncio.Semaphore(0)

    async def talk(socket):
        try:
            for _ in range(40):
                await socket.send(bytes(1000))
            await socket.wait_closed()
        finally:
            ended.release()

    async with instance_of(talk, concurrency=LEAVERS, compression=None) as one:
        house.serve(one, concurrency=LEAVERS)
        began = 0

        async def vanishes(number):
            nonlocal began
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(handshake(house.key))
            if number % 3:
                await reader.readuntil(b" 101 ")
                began += 1
            if number % 3 == 2:
                await reader.readexactly(20_000)
            if number % 2:
                writer.transport.abort()
            writer.close()

        await asyncio.gather(*map(vanishes, range(LEAVERS)))
        await house.quiet()
        for _ in range(began):
            await asyncio.wait_for(ended.acquire(), PATIENCE_S)
        await asyncio.wait_for(one.executor._idle.wait(), PATIENCE_S)
        assert one.executor._active == 0
    assert house.gateway.in_flight_of(one.launch_id) == 0
    assert not house.gateway.front._websockets._open
    demand = house.gateway.demand.snapshot()[house.chute.chute_id]
    assert (demand.in_flight, demand.waiting) == (0, 0)
    records = await house.recorded()
    assert {record.outcome for record in records} == {"client_gone"}
    assert len(records) >= began


@pytest.mark.parametrize(
    "limits", [GatewayLimits(cold_wait_s=0.0, max_websockets_per_key=4)], ids=["four"]
)
async def test_one_that_ended_makes_room_for_another(house):
    """A key's count goes down again."""
    async with instance_of(echo) as one:
        house.serve(one)
        for _ in range(3):
            sockets = await asyncio.gather(*(house.connect() for _ in range(4)))
            await asyncio.gather(*(socket.close() for socket in sockets))
            await house.quiet()
