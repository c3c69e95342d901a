"""What one hostile miner, validator or developer can do to the others: nothing."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from bittensor_core import Keypair
from pydantic import ValidationError

from chutes_core.validator.launches.inventories import EXCHANGE_S, Inventories, MinerAddress
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.validator.launches.ports import Miner
from chutes_core.validator.launches.snapshot import _models
from chutes_core.validator.store.database import Store
from chutes_core.wire.lease import MAX_LEASE_BLOCKS, Lease, place_of
from chutes_core.wire.peers import SignedClient
from tests.unit.launches.test_autoscale_target import chute

US = Keypair.create_from_uri("//Us")
MINER = Keypair.create_from_uri("//Miner")


class Chain:
    """Everybody is registered."""

    devnet, block = True, 0

    def miner(self, hotkey):
        return Miner(hotkey, "cold", 1, "")


@asynccontextmanager
async def served(answer):
    """Serve every path by one handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def serve():
    """Serve one body at every path on a port of its own; yields a function that starts it."""
    runners = []

    async def start(status, body):
        async def answer(_):
            return web.Response(status=status, body=body, content_type="application/json")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner.addresses[0][1]

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def inventories(tmp_path):
    store = Store(tmp_path / "v.sqlite")
    async with SignedClient(US) as client:
        book = LeaseBook(store.leases, Chain(), self_hotkey=US.ss58_address)
        yield Inventories(client, book), store
    store.close()


async def test_a_deeply_nested_answer_hurts_nobody_else(inventories, serve):
    """A miner that answers with 200,000 brackets is a miner that did not answer."""
    port = await serve(400, b"[" * 200_000)
    asked = [MinerAddress(MINER.ss58_address, "127.0.0.1", port)]
    assert await inventories[0].query(asked) == 0


def leases(count):
    return [
        Lease.sign(
            MINER, gpu_uuid=f"GPU-{i}", validator_hotkey=US.ss58_address, from_block=1, to_block=9
        )
        for i in range(count)
    ]


async def test_a_long_list_of_leases_is_read_to_its_end(inventories, serve):
    """More than one buffer of a socket holds; a broken neighbour does not matter."""
    body = {"leases": [json.loads(lease.model_dump_json()) for lease in leases(600)]}
    good = await serve(200, json.dumps(body).encode())
    urls = {"a": f"http://127.0.0.1:{good}", "b": "http://a..b", "c": "http://127.0.0.1:1"}
    assert await inventories[0].exchange(urls, allow_private=True) == 600


async def test_leases_beyond_a_page_are_read_too(inventories, monkeypatch):
    """Another validator's list is followed to its end; one that goes in circles is left."""
    monkeypatch.setattr("chutes_core.validator.launches.inventories.LEASES_PAGE", 4)
    rows = sorted(leases(10), key=lambda lease: lease.place)
    asked, circles = [], []

    async def answer(request):
        asked.append(request.query.get("after"))
        after = place_of(asked[-1]) if asked[-1] and not circles else None
        page = [lease for lease in rows if after is None or lease.place > after][:4]
        return web.json_response({"leases": [lease.model_dump() for lease in page]})

    async with served(answer) as url:
        assert await inventories[0].exchange({"a": url}, allow_private=True) == 10
        assert asked == [None, rows[3].cursor, rows[7].cursor]
        asked.clear()
        circles.append(True)
        await inventories[0].exchange({"a": url}, allow_private=True)
        assert len(asked) == 2


async def test_a_slow_validator_is_read_for_a_bounded_time_and_further_the_next_time(
    inventories, monkeypatch
):
    """Its pages come, and then it stalls; the others are read meanwhile."""
    monkeypatch.setattr("chutes_core.validator.launches.inventories.LEASES_PAGE", 4)
    rows = sorted(leases(10), key=lambda lease: lease.place)
    asked, came, let_go = [], asyncio.Event(), asyncio.Event()

    async def slow(request):
        asked.append(request.query.get("after"))
        if len(asked) == 2:
            came.set()
            await let_go.wait()
        after = asked[-1]
        left = [one for one in rows if after is None or one.place > place_of(after)]
        return web.json_response({"leases": [one.model_dump() for one in left[:4]]})

    async def until_it_stalls(reading, seconds):
        assert seconds == EXCHANGE_S
        task = asyncio.ensure_future(reading)
        await came.wait()
        task.cancel()
        raise asyncio.TimeoutError

    async with served(slow) as url:
        with monkeypatch.context() as patch:
            patch.setattr("chutes_core.validator.launches.inventories._within", until_it_stalls)
            assert await inventories[0].exchange({"a": url}, allow_private=True) == 4
        assert asked == [None, rows[3].cursor]
        assert await inventories[0].exchange({"a": url}, allow_private=True) == 6
        assert asked[2:] == [rows[3].cursor, rows[7].cursor]
        assert await inventories[0].exchange({"a": url}, allow_private=True) == 10
        assert asked[4] is None
        let_go.set()


async def test_private_addresses_are_not_dialled_off_a_devnet(inventories, serve):
    """A committed URL of the operator's own network is left alone."""
    body = {"leases": [json.loads(leases(1)[0].model_dump_json())]}
    port = await serve(200, json.dumps(body).encode())
    urls = {"a": f"http://127.0.0.1:{port}"}
    assert await inventories[0].exchange(urls, allow_private=False) == 0


@pytest.mark.parametrize("to_block", [2**70, MAX_LEASE_BLOCKS + 1])
def test_a_lease_for_ever_is_no_lease(to_block):
    """What could never be forgotten or stored is not even read."""
    with pytest.raises(ValidationError):
        Lease.sign(
            MINER,
            gpu_uuid="GPU-1",
            validator_hotkey=US.ss58_address,
            from_block=1,
            to_block=to_block,
        )


def test_nobody_takes_over_a_models_name_by_deploying_later():
    """The older public chute keeps the text, whoever registers a fitting username."""
    real = chute(
        chute_id="real", username="chutes", name="deepseek-ai/r1", slug="a", public=True,
        created_at_s=1,
    )  # fmt: skip
    thief = chute(
        chute_id="thief", username="deepseek-ai", name="r1", slug="b", public=True, created_at_s=2
    )
    assert _models([thief, real])["deepseek-ai/r1"] == "real"


def test_a_strangers_private_chute_never_shadows_a_public_one():
    """However old it is."""
    private = chute(chute_id="p", username="x", name="echo", slug="a", created_at_s=1)
    public = chute(chute_id="q", username="y", name="echo", slug="b", public=True, created_at_s=2)
    models = _models([private, public])
    assert models["echo"] == "q"
    assert models["x/echo"] == "p"
