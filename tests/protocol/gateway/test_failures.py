import asyncio
from dataclasses import replace

import httpx
import pytest
from gateway_stand_in import House, Incoming, Instance

from chutes_core.base.errors import Unavailable
from chutes_core.validator.gateway.limits import GatewayLimits


async def echo(call: Incoming) -> None:
    await call.answer(call.body)


async def refuse(call: Incoming) -> None:
    await call.error("at_capacity")


async def die(call: Incoming) -> None:
    raise OSError("dead")


def outcomes(house: House) -> list[tuple[str, int, bool]]:
    return [(i.outcome, i.attempts, i.charged) for i in house.journal.pending(0, 100)]


def small(**changes: float) -> pytest.MarkDecorator:
    """Run a test under other limits."""
    return pytest.mark.parametrize(
        "limits", [replace(GatewayLimits(cold_wait_s=0.0), **changes)], ids=["limits"]
    )


async def test_a_cut_by_the_caller_stops_the_instance_and_is_charged(house: House, instance):
    """When the caller leaves, the instance sees it, and what was used is journaled."""
    left = asyncio.Event()

    async def handler(call: Incoming) -> None:
        await call.start()
        await call.chunk(b"one")
        await call.until_left()
        left.set()

    house.serve(await instance(handler))
    async with house.client.stream("POST", "/c/bob-echo/api/echo", headers=house.auth) as response:
        assert await response.aiter_raw().__anext__() == b"one"
    await asyncio.wait_for(left.wait(), 60)
    await house.quiet()
    (record,) = house.journal.pending(0, 10)
    assert (record.outcome, record.charged, record.bytes_out) == ("client_gone", True, 3)
    assert record.usage_us > 0
    assert record.status == 200


async def test_a_caller_who_leaves_before_the_first_byte_is_recorded(house: House, instance):
    """The instance's time up to the cut counts, though no byte of an answer came."""
    begun = asyncio.Event()

    async def handler(call: Incoming) -> None:
        begun.set()
        await call.until_left()

    house.serve(await instance(handler))
    asking = asyncio.ensure_future(house.post(content=b"x"))
    await asyncio.wait_for(begun.wait(), 60)
    asking.cancel()
    await asyncio.wait((asking,))
    await house.quiet()
    (record,) = house.journal.pending(0, 10)
    assert (record.outcome, record.status, record.bytes_out) == ("client_gone", 499, 0)


@pytest.mark.parametrize("bad", [refuse, die])
async def test_a_call_is_tried_elsewhere_before_the_first_byte(house: House, instance, bad):
    """An instance that refuses or dies before its answer costs the caller nothing but time."""
    good, broken = await instance(echo), await instance(bad)
    house.serve(good, broken)
    for number in range(8):
        response = await house.post(content=b"%d" % number)
        assert response.content == b"%d" % number
    assert broken.calls
    assert {outcome for outcome, _, _ in outcomes(house)} == {"ok"}
    assert max(attempts for _, attempts, _ in outcomes(house)) == 2
    assert len(good.calls) == 8


async def test_an_unreachable_instance_is_passed_over(house: House, instance):
    """A refused dial is a failed try like any other."""
    good, closed = await instance(echo), Instance(echo)
    await closed.listen()
    await closed.close()
    house.serve(good, closed)
    for _ in range(6):
        assert (await house.post(content=b"x")).status_code == 200


@pytest.mark.parametrize("limits", [GatewayLimits(cold_wait_s=20.0)], ids=["limits"])
async def test_a_call_that_reached_nobody_waits_for_a_fresh_instance(house: House, instance):
    """The last instance is gone and the validator does not know it yet: no 502, but an answer."""
    gone, fresh = Instance(echo), await instance(echo)
    await gone.listen()
    await gone.close()
    begun = house.queueing()
    house.serve(gone)
    asking = asyncio.ensure_future(house.post(content=b"x"))
    await asyncio.wait_for(begun.acquire(), 60)
    house.serve(gone, fresh)
    response = await asking
    assert (response.status_code, response.content) == (200, b"x")
    assert outcomes(house) == [("ok", 2, True)]


@pytest.mark.parametrize("limits", [GatewayLimits(cold_wait_s=20.0)], ids=["limits"])
async def test_a_call_that_ends_its_instance_does_not_wait_for_the_next(house: House, instance):
    """What an instance may have seen is not sent to one that starts later."""
    house.serve(await instance(die))
    response = await asyncio.wait_for(house.post(content=b"x"), 60)
    assert (response.status_code, response.json()["code"]) == (502, "instance_failed")


async def test_an_instance_out_of_reach_with_none_in_time_is_503(house: House, instance):
    """Whoever waited for a fresh instance in vain is told so, and pays nothing."""
    gone = Instance(echo)
    await gone.listen()
    await gone.close()
    house.serve(gone)
    response = await house.post(content=b"x")
    assert (response.status_code, response.json()["code"]) == (503, "no_instance")
    assert house.gateway.taken_rao(house.owner_id) == 0


async def test_all_instances_failing_is_502_and_costs_nothing(house: House, instance):
    """When every try fails the caller hears 502; a failed record is written, and no charge."""
    house.serve(await instance(die), await instance(die))
    response = await house.post(content=b"x")
    assert response.status_code == 502
    assert response.json()["code"] == "instance_failed"
    assert "x-chutes-invocationid" in response.headers
    assert outcomes(house) == [("failed", 2, False)]
    assert house.journal.pending(0, 1)[0].usage_us == 0
    assert house.gateway.taken_rao(house.owner_id) == 0


async def test_a_chute_that_raises_is_500_and_is_not_tried_elsewhere(house: House, instance):
    """The runner's word that the chute's own code failed is a chute_error, and opens no breaker."""

    async def raises(call: Incoming) -> None:
        await call.error("cord_failed")

    one = await instance(raises)
    house.serve(one)
    for _ in range(4):
        response = await house.post(content=b"x")
        assert (response.status_code, response.json()["code"]) == (500, "chute_error")
    assert outcomes(house) == [("chute_error", 1, False)] * 4
    assert len(one.calls) == 4


async def test_an_instance_that_keeps_failing_is_left_alone_for_a_while(house: House, instance):
    """After three failures in a row calls are refused at once, with a time to come again."""
    one = await instance(die)
    house.serve(one)
    for _ in range(3):
        assert (await house.post()).status_code == 502
    response = await house.post()
    assert (response.status_code, response.json()["code"]) == (503, "instances_failing")
    assert len(one.calls) == 3


async def test_all_instances_full_is_429_with_retry_after(house: House, instance):
    """at_capacity from every instance becomes 429 and leaves no record: nothing ran."""
    house.serve(await instance(refuse))
    response = await house.post(content=b"x")
    assert (response.status_code, response.json()["code"]) == (429, "at_capacity")
    assert int(response.headers["retry-after"]) >= 1
    assert outcomes(house) == []


async def test_the_gateway_itself_keeps_the_concurrency(house: House, instance):
    """A call above the instance's slots gets 429 without being sent."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def handler(call: Incoming) -> None:
        begun.set()
        await go.wait()
        await call.answer()

    one = await instance(handler)
    house.serve(one, concurrency=1)
    first = asyncio.ensure_future(house.post())
    await asyncio.wait_for(begun.wait(), 60)
    response = await house.post()
    assert (response.status_code, response.json()["code"]) == (429, "at_capacity")
    go.set()
    assert (await first).status_code == 200
    assert len(one.calls) == 1


async def test_a_death_in_the_stream_is_a_cut_connection_and_never_a_retry(house: House, instance):
    """After the first byte a failure must look like one; it is not charged nor tried again."""

    async def handler(call: Incoming) -> None:
        await call.start()
        await call.chunk(b"half")
        raise OSError("dead")

    one, two = await instance(handler), await instance(handler)
    house.serve(one, two)
    with pytest.raises(httpx.RemoteProtocolError):
        await house.post()
    await house.quiet()
    assert outcomes(house) == [("failed", 1, False)]
    assert len(one.calls) + len(two.calls) == 1
    assert house.gateway.taken_rao(house.owner_id) == 0


async def test_an_error_in_the_stream_is_a_cut_connection(house: House, instance):
    """ERROR among the chunks is the chute's error, and the answer is never ended cleanly."""

    async def handler(call: Incoming) -> None:
        await call.start()
        await call.chunk(b"half")
        await call.error("cord_failed")

    house.serve(await instance(handler))
    with pytest.raises(httpx.RemoteProtocolError):
        await house.post()
    await house.quiet()
    assert outcomes(house) == [("chute_error", 1, False)]


@pytest.mark.parametrize("body", [b"abc", b"abcdef"], ids=["short", "long"])
async def test_a_body_that_breaks_its_length_is_cut_off(house: House, instance, body):
    """An instance cannot end an answer by another length than it promised."""

    async def handler(call: Incoming) -> None:
        await call.start(200, (("content-length", "5"),))
        await call.chunk(body)
        await call.end()

    house.serve(await instance(handler))
    with pytest.raises(httpx.RemoteProtocolError):
        await house.post()
    await house.quiet()
    assert outcomes(house) == [("failed", 1, False)]


@pytest.mark.parametrize(
    "headers",
    [
        (("x-a", "1\r\nset-cookie: a=b"),),
        (("x a", "1"),),
        (("content-length", "1"), ("content-length", "2")),
        (("content-length", "-1"),),
        (("content-length", "9" * 5000),),
    ],
)
async def test_a_head_that_would_split_the_response_is_502(house: House, instance, headers):
    """Headers by which an instance could forge a second response never reach the caller."""

    async def handler(call: Incoming) -> None:
        await call.start(200, headers)
        await call.end()

    house.serve(await instance(handler))
    response = await house.post()
    assert (response.status_code, response.json()["code"]) == (502, "bad_response")


async def test_a_pooled_connection_that_died_is_replaced(house: House, instance):
    """A connection that ended between two calls is no failure of the instance."""
    one = await instance(echo)
    house.serve(one)
    assert (await house.post(content=b"a")).content == b"a"
    one.cut_all()
    assert (await house.post(content=b"b")).content == b"b"
    assert [attempts for _, attempts, _ in outcomes(house)] == [1, 1]


async def test_a_pooled_connection_that_dies_under_the_call_is_replaced(house: House, instance):
    """A reused connection that ends before the answer is tried once more, freshly dialled."""

    async def handler(call: Incoming) -> None:
        if len(one.calls) == 2:
            raise OSError("dead")
        await call.answer(call.body)

    one = await instance(handler)
    house.serve(one)
    assert (await house.post(content=b"a")).content == b"a"
    assert (await house.post(content=b"b")).content == b"b"
    assert [attempts for _, attempts, _ in outcomes(house)] == [1, 1]


@small(first_byte_timeout_s=0.5)
async def test_no_first_byte_in_time_is_504(house: House, instance):
    """An instance that stays silent is cut off, and the call is not tried again."""

    async def handler(call: Incoming) -> None:
        await call.until_left()

    one, two = await instance(handler), await instance(handler)
    house.serve(one, two)
    response = await house.post()
    assert (response.status_code, response.json()["code"]) == (504, "first_byte_timeout")
    assert len(one.calls) + len(two.calls) == 1
    assert outcomes(house) == [("failed", 1, False)]


@small(idle_timeout_s=0.3)
async def test_a_stream_that_stops_is_cut_off(house: House, instance):
    """Silence in the middle of an answer is the instance's failure."""

    async def handler(call: Incoming) -> None:
        await call.start()
        await call.chunk(b"half")
        await call.until_left()

    house.serve(await instance(handler))
    with pytest.raises(httpx.RemoteProtocolError):
        await house.post()
    await house.quiet()
    assert outcomes(house) == [("failed", 1, False)]


@small(max_call_s=0.5)
async def test_a_stream_that_outlives_its_hold_is_cut_and_charged(house: House, instance):
    """What the caller paid for is used up: cut on the caller's account."""

    async def handler(call: Incoming) -> None:
        await call.start()
        await call.chunk(b"some")
        await call.until_left()

    house.serve(await instance(handler))
    with pytest.raises(httpx.RemoteProtocolError):
        await house.post()
    await house.quiet()
    assert outcomes(house) == [("client_gone", 1, True)]


@small(idle_timeout_s=0.3)
async def test_a_caller_who_stops_reading_is_cut_and_charged(house: House, instance):
    """A slow reader holds the instance back, up to the idle time, and pays for it."""

    async def handler(call: Incoming) -> None:
        await call.start()
        while True:
            await call.chunk(bytes(65536))

    house.serve(await instance(handler))
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(
        b"POST /c/bob-echo/api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
        b"Authorization: Bearer " + house.key.encode() + b"\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    await house.quiet()
    (record,) = house.journal.pending(0, 10)
    assert (record.outcome, record.charged) == ("client_gone", True)
    assert record.bytes_out < 100_000_000
    writer.close()


@pytest.mark.interpreted
async def test_a_full_journal_refuses_before_dispatch(
    house: House, instance, monkeypatch: pytest.MonkeyPatch
):
    """When calls cannot be recorded, none is sent to an instance."""
    one = await instance(echo)
    house.serve(one)

    def refuse_all() -> None:
        raise Unavailable("journal_full", "full")

    monkeypatch.setattr(house.journal, "check", refuse_all)
    response = await house.post(content=b"x")
    assert (response.status_code, response.json()["code"]) == (503, "journal_full")
    assert one.calls == []
    assert house.gateway.taken_rao(house.owner_id) == 0


@pytest.mark.interpreted
async def test_an_answer_that_cannot_be_recorded_is_never_complete(
    house: House, instance, monkeypatch: pytest.MonkeyPatch
):
    """If the disk fills while a call runs, its caller sees a failure and is not charged."""
    house.serve(await instance(echo))

    def refuse_append(_records: object) -> int:
        raise Unavailable("journal_full", "full")

    for warm in (False, True):  # a first call opens a connection, the next one finds it
        if warm:
            assert (await house.post(content=b"x")).content == b"x"
        taken_rao = house.gateway.taken_rao(house.owner_id)
        with monkeypatch.context() as full:
            full.setattr(house.journal, "append_rests", refuse_append)
            with pytest.raises(httpx.RemoteProtocolError):
                await house.post(content=b"x")
            await house.quiet()
        assert house.gateway.taken_rao(house.owner_id) == taken_rao


async def test_a_refusal_during_a_large_upload_is_heard(house: House, instance):
    """An instance that answers without reading the body does not deadlock the call."""

    async def deaf(call: Incoming) -> None:
        raise AssertionError("never whole")

    one = await instance(deaf)
    two = await instance(echo)
    one.refuses_at_once = True
    house.serve(one, two)
    body = bytes(290_000)
    for _ in range(4):
        assert (await house.post(content=body)).content == body
    assert one.connections > 0
