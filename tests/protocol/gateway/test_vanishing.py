"""Callers who vanish, and TLS: on the data plane and, where it can, the reference."""

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest
from certificate import make_certificate
from gateway_stand_in import House, Incoming, planed

from chutes_core.base.errors import Invalid
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.server import server
from chutes_core.validator.settings import ValidatorSettings

CALLERS = 150
LIMITS = GatewayLimits(cold_wait_s=0.0, key_burst=10**6, key_calls_per_s=10**6)


@pytest.mark.parametrize("limits", [LIMITS], ids=["many"])
async def test_callers_who_vanish_leave_nothing(house: House, instance):
    """Cut before the first byte, inside a stream, or after it: no slot, hold, body stays behind."""

    async def streams(call: Incoming) -> None:
        if call.body == b"late":
            await call.until_left()
            return
        await call.start()
        while True:
            await call.chunk(b"data: token\n\n")
            await asyncio.sleep(0.01)

    one = await instance(streams)
    payer = house.world.payers[house.owner_id]
    house.world.payers[house.owner_id] = type(payer)(payer.user_id, payer.coldkey_ss58, 10**15)
    house.serve(one, concurrency=CALLERS)

    async def vanishes(number: int) -> None:
        body = (b"late", b"soon", b"read")[number % 3]
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        lines = ["POST /c/bob-echo/api/echo HTTP/1.1", "Host: x", f"X-Api-Key: {house.key}"]
        lines += [f"Content-Length: {len(body)}", "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        if body != b"late":
            await reader.readuntil(b"token")
        if number % 2:
            writer.transport.abort()
        writer.close()

    for _ in range(2):  # on new connections to the instance, and on idle ones if any were kept
        await asyncio.gather(*map(vanishes, range(CALLERS)))
        await asyncio.wait_for(house.gateway.quiet(), 60)
    assert house.gateway.stats()["slots"] == house.gateway.stats()["body_bytes"] == 0
    assert house.gateway.in_flight_of(one.launch_id) == 0
    demand = house.gateway.demand.snapshot()[house.chute.chute_id]
    assert (demand.in_flight, demand.waiting) == (0, 0)
    records = house.journal.pending(0, 10_000)
    assert {record.outcome for record in records} == {"client_gone"}
    owed = sum(house.chute.rate.charge_rao(record.usage_us) for record in records)
    assert house.gateway.taken_rao(house.owner_id) == owed


def settings_of(**more: object) -> ValidatorSettings:
    return ValidatorSettings(payment_treasury="a", deposit_treasury="b", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("served_by", ["plane"], indirect=True)
async def test_tls_ends_at_the_data_plane(house: House, instance, tmp_path: Path):
    """A call over TLS, verified against the certificate that the settings name."""

    async def echo(call: Incoming) -> None:
        await call.answer(call.body)

    house.serve(await instance(echo))
    chain, secret = make_certificate(tmp_path)
    settings = settings_of(host="0.0.0.0", tls_certificate=chain, tls_key=secret)
    settings.check_binding()
    context = server(house.gateway, settings)._tls  # type: ignore[union-attr]
    trusted = ssl.create_default_context(cafile=str(chain))
    async with (
        planed(house.gateway, tls=context) as port,
        httpx.AsyncClient(verify=trusted, trust_env=False, timeout=60) as client,
    ):
        for body in (b"one", b"two"):
            url = f"https://localhost:{port}/c/bob-echo/api/echo"
            response = await client.post(url, content=body, headers=house.auth)
            assert response.content == body


@pytest.mark.parametrize(
    "more",
    [
        {"tls_certificate": "chain.pem"},
        {"tls_key": "key.pem"},
        {"tls_certificate": "chain.pem", "tls_key": "key.pem", "data_plane": "reference"},
    ],
)
def test_half_of_a_tls_configuration_is_refused(more: dict[str, str]):
    """A certificate without its key, a key without certificate, a server that speaks no TLS."""
    with pytest.raises(Invalid, match=r"tls|TLS"):
        settings_of(**more).check_binding()


@pytest.mark.parametrize("served_by", ["plane"], indirect=True)
async def test_a_certificate_that_is_none_stops_the_start(house: House, tmp_path: Path):
    """The error names the files and what is expected in them."""
    broken = tmp_path / "chain.pem"
    broken.write_text("nothing")
    with pytest.raises(Invalid, match="make no TLS server"):
        server(house.gateway, settings_of(tls_certificate=broken, tls_key=broken))
