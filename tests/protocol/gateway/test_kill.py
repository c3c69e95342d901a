import asyncio
import json
import os
import sys
from pathlib import Path

import httpx
from gateway_stand_in import Incoming

from chutes_core.validator.gateway.journal import Journal

HERE = Path(__file__).parent
CALLERS = 8
ANSWERS_BEFORE_THE_KILL = 60


async def test_kill_9_loses_no_answered_call(tmp_path: Path, instance):
    """Of a gateway killed under calls, every call whose answer was complete is recorded, once."""

    async def answer(call: Incoming) -> None:
        if call.body.endswith(b"0"):
            await call.start()  # without a length: chunked
            await call.chunk(b"streamed ")
            await call.chunk(call.body)
            await call.end()
        else:
            await call.answer(call.body)

    one = await instance(answer)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "served_gateway.py"),
        str(tmp_path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(HERE.parents[2]), str(HERE)))},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    place = [one.launch_id, one.port, one.ticket.hex(), one.root.hex()]
    process.stdin.write(json.dumps(place).encode() + b"\n")
    port, key = json.loads(await process.stdout.readline())
    answered: list[str] = []
    enough = asyncio.Event()

    async def caller(client: httpx.AsyncClient, name: int) -> None:
        number = 0
        while True:
            number += 1
            try:
                response = await client.post(
                    "/c/bob-echo/api/echo",
                    content=b"%d %d" % (name, number),
                    headers={"x-api-key": key},
                )
            except httpx.TransportError:
                return
            assert response.status_code == 200
            answered.append(response.headers["x-chutes-invocationid"])
            if len(answered) >= ANSWERS_BEFORE_THE_KILL:
                enough.set()

    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=90) as client:
        callers = [asyncio.ensure_future(caller(client, name)) for name in range(CALLERS)]
        await asyncio.wait_for(enough.wait(), 120)
        process.kill()
        await process.wait()
        await asyncio.gather(*callers)
    journal = Journal(tmp_path, "w1")
    recorded = [
        record.invocation_id
        for record in journal.pending(0, 100_000)
        if record.outcome in ("ok", "client_gone")
    ]
    journal.close()
    assert len(answered) >= ANSWERS_BEFORE_THE_KILL
    assert len(set(recorded)) == len(recorded)
    assert set(answered) <= set(recorded)
