"""The wake-up over real sockets: a miner waits at a validator's door until more is wanted."""

import asyncio
import socket
from dataclasses import dataclass

import pytest
from fastapi import FastAPI

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError, Forbidden
from chutes_core.base.loops import Signal
from chutes_core.miner.discovery import Validator
from chutes_core.miner.store import MinerStore
from chutes_core.miner.validator_api import HttpValidatorApi
from chutes_core.validator.api.errors import install_errors
from chutes_core.validator.api.routes import wake
from chutes_core.validator.launches.bell import MAX_WAIT_S, Bell
from chutes_core.wire.control import Wake
from chutes_core.wire.http_server import new_server
from chutes_core.wire.neuron_http import SignedASGI
from chutes_core.wire.peers import SignedClient

WAIT_S = 60.0


@dataclass(frozen=True)
class Missing:
    chute_id: str
    missing: int
    version: str = "v"


class Door:
    """What a validator has of all this: the bell behind signed HTTP."""

    def __init__(self):
        self.wanted, self.news = [], Signal()
        self.bell = Bell(self, self.news, lambda: 0)
        self.refused = False

    def listed(self, now_s):
        return list(self.wanted)

    async def more(self):
        self.wanted = [*self.wanted, Missing(f"chute {len(self.wanted)}", 1)]
        self.news.set()
        await self.bell.look()

    async def authorise(self, hotkey):
        if self.refused:
            raise Forbidden("not_registered", "no", hint="register")


@pytest.fixture
async def door(tmp_path, keys):
    """Serve a bell; yield the door and the validator as a miner knows it."""
    door, store = Door(), MinerStore(tmp_path / "nonces.sqlite3")
    app = FastAPI()
    install_errors(app)
    app.include_router(wake.build_router(door.bell))
    guarded = SignedASGI(
        app,
        keypair=keys["validator"],
        nonces=store,
        authorise=door.authorise,
        clock=SystemClock(),
        prefixes=("/miner/",),
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = new_server(guarded, grace_s=5)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    yield door, Validator(keys["validator"].ss58_address, url, 1)
    door.bell.close()
    server.should_exit = True
    await serving
    store.close()


async def test_a_waiting_miner_hears_that_more_is_wanted(door, keys):
    """The call comes back signed, with another number, when a chute comes to miss an instance."""
    bell, validator = door
    async with HttpValidatorApi(keys["miner"]) as api:
        number = await asyncio.wait_for(api.wake(validator, 0), WAIT_S)
        waiting = asyncio.ensure_future(api.wake(validator, number))
        while not bell.bell._waiting:
            assert not waiting.done()
            await asyncio.sleep(0.01)
        await bell.more()
        assert await asyncio.wait_for(waiting, WAIT_S) == number + 1


async def test_nobody_waits_longer_than_the_bound(door, keys):
    """A longer wait than the bound is refused, not shortened in silence."""
    _, validator = door
    async with SignedClient(keys["miner"]) as client:
        with pytest.raises(ChutesError):
            await client.call(
                "GET",
                validator.url,
                f"/miner/wake?after=0&wait_s={MAX_WAIT_S + 1}",
                Wake,
                peer_hotkey_ss58=validator.hotkey,
            )


async def test_who_is_not_registered_does_not_wait(door, keys):
    """The guard of every control call stands before this one too."""
    bell, validator = door
    bell.refused = True
    async with HttpValidatorApi(keys["miner"]) as api:
        with pytest.raises(Forbidden):
            await api.wake(validator, bell.bell.number)
    assert not bell.bell._waiting
