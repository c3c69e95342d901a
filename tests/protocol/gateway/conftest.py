import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for gateway_stand_in under --import-mode=importlib

from gateway_stand_in import DOMAIN, Handler, House, Instance, World, planed, serving

from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits

LIMITS = GatewayLimits(max_body_bytes=300_000, cold_wait_s=0.0)


async def control(scope, receive, send) -> None:
    """A control plane that says that it was asked."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"control " + scope["path"].encode()})


@pytest.fixture
def limits() -> GatewayLimits:
    return LIMITS


@pytest.fixture(params=["plane", "reference"])
def served_by(request: pytest.FixtureRequest) -> str:
    """Every test is for both fronts: the data plane, and the raw ASGI form on uvicorn."""
    return str(request.param)


@pytest.fixture
async def house(tmp_path: Path, limits: GatewayLimits, served_by: str) -> AsyncIterator[House]:
    journal = Journal(tmp_path / "journal", "w1")
    gateway = Gateway(
        control=control, journal=journal, limits=limits, domain=DOMAIN, rng=random.Random(1)
    )
    world = World()
    owner_id = world.user()
    chute = world.chute(owner_id)
    key = world.key(owner_id)
    door = planed(gateway) if served_by == "plane" else serving(gateway.front)
    async with door as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=90) as client:
            made = House(world, gateway, journal, client, owner_id, key, chute, port)
            made.swap()
            yield made
        await made.quiet()
        assert gateway.stats()["slots"] == 0
        assert gateway.stats()["body_bytes"] == 0
        await gateway.close()
    journal.close()


@pytest.fixture
async def instance() -> AsyncIterator[Callable[[Handler], Awaitable[Instance]]]:
    made: list[Instance] = []

    async def make(handler: Handler) -> Instance:
        one = Instance(handler)
        await one.listen()
        made.append(one)
        return one

    yield make
    for one in made:
        await one.close()
