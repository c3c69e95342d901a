"""TLS on several worker processes: each ends it by itself."""

import asyncio
import ssl
from pathlib import Path

import httpx
from certificate import make_certificate
from crewed import LONG_S, crewed
from gateway_stand_in import Incoming


async def echo(call: Incoming) -> None:
    await call.answer(call.body)


async def test_tls_ends_at_every_worker(tmp_path: Path, instance):
    """Verified calls by both workers, the control plane through one, and no answer in the open."""
    files = make_certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(files[0]))
    async with crewed(tmp_path, tls=files) as house:
        await house.serve(await instance(echo), concurrency=64)
        url = house.url.replace("http://127.0.0.1", "https://localhost")

        async def ask() -> None:
            async with httpx.AsyncClient(
                base_url=url, verify=trusted, trust_env=False, timeout=LONG_S, headers=house.auth
            ) as client:
                for body in (b"x", b"y" * 200_000):
                    answer = await client.post("/c/bob-echo/api/echo", content=body)
                    assert (answer.status_code, answer.content) == (200, body)
                    said.append(body)
                control = await client.post("/other", content=b"abc")
                assert control.text.startswith("POST /other 3 127.0.0.1")

        said: list[bytes] = []
        while not all(member.stats.get("outcome_ok") for member in house.members()):
            await asyncio.gather(*(ask() for _ in range(4)))
            await house.until(lambda: house.crew.stats().get("outcome_ok") == len(said))
        await house.settle()
        assert len(house.recorded()) == len(said)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not (await asyncio.wait_for(reader.read(), LONG_S)).startswith(b"HTTP/")
        writer.close()
