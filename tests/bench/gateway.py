"""Requests per second and CPU time per request: our front against a plain proxy, in one run.

Both stand behind uvicorn in this process's loop and pass a small POST on to an upstream in a child
process: ours over sealed connections, with admission, hold and journal; the other is FastAPI with
aiohttp over plain HTTP, with none of these. The client is a child process too. CPU time is this
process's own. Nothing is asserted: the figures are for a person to read.

    python tests/bench/gateway.py [--requests N] [--concurrency C] [--json]
"""

import argparse
import asyncio
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import fastapi
import uvloop

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/protocol/gateway")]

from gateway_stand_in import Incoming, Instance, World, serving  # noqa: E402

from chutes_core.validator.domain.snapshot import InstanceView  # noqa: E402
from chutes_core.validator.gateway.gateway import Gateway  # noqa: E402
from chutes_core.validator.gateway.journal import Journal  # noqa: E402
from chutes_core.validator.gateway.limits import GatewayLimits  # noqa: E402

BODY = b'{"input": "a sentence of ordinary length, as one embeds it"}'
ANSWER = json.dumps({"data": [{"embedding": [0.125] * 384}]}).encode()


@dataclass(frozen=True)
class Result:
    """One run: requests answered, wall time, this process's CPU time."""

    name: str
    requests: int
    wall_s: float
    cpu_s: float

    def row(self) -> dict[str, object]:
        return {
            "name": self.name,
            "requests_per_s": round(self.requests / self.wall_s),
            "cpu_us_per_request": round(self.cpu_s / self.requests * 1e6),
        }


async def upstream(kind: str) -> None:
    """Child: serve ANSWER over sealed connections, or over plain HTTP; print where."""
    if kind == "sealed":

        async def answer(call: Incoming) -> None:
            await call.answer(ANSWER, headers=(("content-type", "application/json"),))

        instance = Instance(answer)
        await instance.listen(relayed=False)
        place = [instance.port, instance.launch_id, instance.ticket.hex(), instance.root.hex()]
        print(json.dumps(place), flush=True)
        await asyncio.Event().wait()

    async def plain(scope: object, receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]
        headers = [(b"content-length", str(len(ANSWER)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": ANSWER})  # type: ignore[operator]

    async with serving(plain) as port:
        print(json.dumps([port]), flush=True)
        await asyncio.Event().wait()


async def client(url: str, key: str, requests: int, concurrency: int) -> None:
    """Child: warm up, print a line, wait for one, send all requests, print the wall time."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

        async def some(count: int) -> None:
            for _ in range(count):
                async with session.post(url, data=BODY, headers=headers) as response:
                    assert response.status == 200, await response.text()
                    assert len(await response.read()) == len(ANSWER)

        async def all_of(count: int) -> float:
            begun = time.monotonic()
            await asyncio.gather(*(some(count // concurrency) for _ in range(concurrency)))
            return time.monotonic() - begun

        await all_of(concurrency * 10)
        print("warm", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        print(await all_of(requests), flush=True)


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def measured(name: str, url: str, key: str, options: argparse.Namespace) -> Result:
    requests = options.requests // options.concurrency * options.concurrency
    async with child("client", url, key, str(requests), str(options.concurrency)) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert await process.stdout.readline() == b"warm\n"
        cpu_s = time.process_time()
        process.stdin.write(b"go\n")
        wall_s = float(await process.stdout.readline())
        return Result(name, requests, wall_s, time.process_time() - cpu_s)


async def ours(options: argparse.Namespace, directory: Path) -> Result:
    async def control(scope: object, receive: object, send: object) -> None:
        raise AssertionError("no invocation")

    async with child("upstream", "sealed") as process:
        assert process.stdout is not None
        port, launch_id, ticket, root = json.loads(await process.stdout.readline())
        world = World()
        user = world.user(spendable_rao=10**18)
        chute, key = world.chute(user), world.key(user)
        view = InstanceView(
            launch_id,
            chute.chute_id,
            "127.0.0.1",
            port,
            bytes.fromhex(ticket),
            bytes.fromhex(root),
            options.concurrency,
        )
        world.instances[chute.chute_id] = (view,)
        journal = Journal(directory, "bench")
        limits = GatewayLimits(key_calls_per_s=10**6, key_burst=10**6)
        gateway = Gateway(control=control, journal=journal, limits=limits)
        gateway.swap(world.snapshot())
        async with serving(gateway.front) as own:
            url = f"http://127.0.0.1:{own}/c/{chute.slug}/api/echo"
            result = await measured("our front", url, key, options)
        await gateway.close()
        assert journal.last_sequence >= result.requests
        journal.close()
        return result


async def plain_proxy(options: argparse.Namespace) -> Result:
    app = fastapi.FastAPI()
    async with child("upstream", "plain") as process, aiohttp.ClientSession() as session:
        assert process.stdout is not None
        (port,) = json.loads(await process.stdout.readline())

        @app.post("/c/{slug}/{path:path}")
        async def proxy(slug: str, path: str, request: fastapi.Request) -> fastapi.Response:
            onward = f"http://127.0.0.1:{port}/{path}"
            async with session.post(onward, data=await request.body()) as response:
                return fastapi.Response(await response.read(), response.status)

        async with serving(app) as own:
            url = f"http://127.0.0.1:{own}/c/bob-echo/api/echo"
            return await measured("plain proxy", url, secrets.token_hex(8), options)


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        results = [await plain_proxy(options), await ours(options, Path(directory))]
    rows = [result.row() for result in results]
    if options.json:
        print(json.dumps({"python": sys.version.split()[0], "results": rows}))
        return
    for row in rows:
        print("{name:12} {requests_per_s:6} requests/s {cpu_us_per_request:6} us CPU".format(**row))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["upstream", kind]:
            job = upstream(kind)
        case ["client", url, key, requests, concurrency]:
            job = client(url, key, int(requests), int(concurrency))
        case _:
            job = main(_options())
    uvloop.run(job)
