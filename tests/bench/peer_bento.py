"""BentoML's contender: a service whose methods pass their input on to the origin at $ORIGIN.

Loaded by `bentoml serve` in an interpreter that has BentoML (gateway_peers.py).
"""

import json
import os
from collections.abc import AsyncGenerator

import aiohttp
import bentoml

ORIGIN = f"http://127.0.0.1:{os.environ['ORIGIN']}"
SESSIONS: list[aiohttp.ClientSession] = []  # one, made on the loop that serves


def session() -> aiohttp.ClientSession:
    if not SESSIONS:
        SESSIONS.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=256)))
    return SESSIONS[0]


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, traffic={"timeout": 600})
class Peer:
    """Two methods, as an embedding and a chat have."""

    @bentoml.api
    async def echo(self, input: str) -> dict:
        async with session().post(f"{ORIGIN}/echo", json={"input": input}) as response:
            return json.loads(await response.read())

    @bentoml.api
    async def stream(self, input: str, ctx: bentoml.Context) -> AsyncGenerator[str, None]:
        headers = {name: ctx.request.headers[name] for name in ("x-count", "x-every-us")}
        onward = session().post(f"{ORIGIN}/stream", json={"input": input}, headers=headers)
        async with onward as response:
            async for data in response.content.iter_any():
                yield data.decode()
