import asyncio
import re

import httpx
from gateway_stand_in import House, Incoming
from loguru import logger

from chutes_core.base.clock import ManualClock
from chutes_core.validator.gateway.metrics import BOUNDS_US, Histogram
from chutes_core.validator.health import Health
from chutes_core.validator.metrics import HOST, MAX_CONNECTIONS, MetricsDoor

LINE = re.compile(
    r'(# TYPE \w+ (gauge|counter|histogram))|(\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? \S+)'
)


def read(text: str) -> dict[str, float]:
    """Check that every line is one of the format, and return the values."""
    values = {}
    for line in text.splitlines():
        assert LINE.fullmatch(line), line
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in values
            values[name] = float(value)
    return values


async def test_what_callers_met_is_counted(house: House, instance):
    """Calls by outcome, refusals by code, both histograms, and what waits to be settled."""

    async def answer(call: Incoming) -> None:
        await call.answer(b"", status=500 if call.body == b"fail" else 200)

    house.serve(await instance(answer))
    for body in (b"one", b"two", b"fail"):
        await house.post(content=body)
    await house.post("/c/bob-echo/api/none")
    await house.post(headers={})
    await house.quiet()
    values = read(house.gateway.metrics())
    assert values['chutes_gateway_calls_total{outcome="ok"}'] == 2
    assert values['chutes_gateway_calls_total{outcome="chute_error"}'] == 1
    assert values['chutes_gateway_refused_total{code="cord_not_found"}'] == 1
    assert values['chutes_gateway_refused_total{code="no_key"}'] == 1
    for name in ("call_seconds", "first_byte_seconds"):
        assert values[f"chutes_gateway_{name}_count"] == 3
        assert values[f'chutes_gateway_{name}_bucket{{le="+Inf"}}'] == 3
        assert values[f"chutes_gateway_{name}_sum"] > 0
    assert values["chutes_gateway_journal_lag_records"] == 3
    assert values["chutes_gateway_calls_in_flight"] == values["chutes_gateway_slots_taken"] == 0
    assert values["chutes_gateway_instances_broken"] == 0
    assert values["chutes_gateway_snapshot_age_seconds"] >= 0
    house.world.drained["w1"] = 3
    house.swap()
    assert read(house.gateway.metrics())["chutes_gateway_journal_lag_records"] == 0
    assert house.owner_id not in house.gateway.metrics()


async def test_the_access_log_is_off_until_asked_for_and_tells_no_secret(house: House, instance):
    """One line for each call, without its key, its user, or what was said."""

    async def answer(call: Incoming) -> None:
        await call.answer(b"the answer")

    house.serve(await instance(answer))
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(str(line)), format="{message} {extra}")
    try:
        await house.post(content=b"the question")
        assert not any("Call ended" in line for line in lines)
        house.gateway.log_calls()
        answered = await house.post(content=b"the question")
    finally:
        logger.remove(handler)
    (line,) = [line for line in lines if "Call ended" in line]
    assert answered.headers["x-chutes-invocationid"] in line
    key = house.world.keys[next(iter(house.world.keys))]
    for secret in (house.key, key.key_id, house.owner_id, "127.0.0.1", "question", "the answer"):
        assert secret not in line


def test_a_histogram_counts_up_to_and_with_its_bounds():
    """A time that equals a bound lies below it; buckets add up."""
    times = Histogram()
    for microseconds in (0, BOUNDS_US[0], BOUNDS_US[0] + 1, BOUNDS_US[-1] + 1):
        times.observe(microseconds)
    lines = list(times.lines("t"))
    assert lines[1:3] == [
        'chutes_gateway_t_bucket{le="0.001"} 2',
        'chutes_gateway_t_bucket{le="0.0025"} 3',
    ]
    assert lines[-3:] == [
        'chutes_gateway_t_bucket{le="+Inf"} 4',
        "chutes_gateway_t_sum 300.002002",
        "chutes_gateway_t_count 4",
    ]


async def test_metrics_have_a_door_of_their_own():
    """It is on a loopback address, answers one path, and shows all sources."""
    health = Health(ManualClock())
    door = MetricsDoor(0, [health.metrics, lambda: "more 1\n"])
    door.open(any_port=True)
    assert door.address is not None
    host, port = door.address
    assert host == HOST == "127.0.0.1"
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            page = await client.get("/metrics")
            assert (page.status_code, page.headers["content-type"]) == (
                200,
                "text/plain; version=0.0.4",
            )
            values = read(page.text)
            assert values["chutes_validator_healthy"] == values["more"] == 1
            assert (await client.get("/")).status_code == 404
            assert (await client.post("/metrics")).status_code == 404
    finally:
        await door.close()
    assert door.address is None


async def test_the_door_is_small():
    """One connection more than it holds is told so."""
    door = MetricsDoor(0, [])
    door.open(any_port=True)
    assert door.address is not None
    held = []
    try:
        for _ in range(MAX_CONNECTIONS):
            held.append(await asyncio.open_connection(*door.address))
            held[-1][1].write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await asyncio.wait_for(held[-1][0].readline(), 60)
        reader, writer = await asyncio.open_connection(*door.address)
        held.append((reader, writer))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"server_full" in await asyncio.wait_for(reader.read(), 60)
    finally:
        for _, writer in held:
            writer.close()
        await door.close()


async def test_without_a_port_there_is_no_door():
    """Nothing listens unless the operator asks."""
    door = MetricsDoor(0, [])
    door.open()
    assert door.address is None
    await door.close()
