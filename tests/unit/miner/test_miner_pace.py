"""How often one address may ask a miner."""

import json

import pytest
from bittensor_core import Keypair

from chutes_core.base.clock import ManualClock
from chutes_core.miner.pace import BURST, MAX_ADDRESSES, PER_S, Pace
from chutes_core.miner.server import build_http


class Strict:
    """A store of nonces that notes when it is asked."""

    def __init__(self):
        self.asked = 0

    def use(self, *_arguments, **_named):
        self.asked += 1
        return True


@pytest.fixture
def ask():
    """Ask a miner's HTTP from an address; the status and the answer."""
    clock, nonces = ManualClock(), Strict()
    app = build_http(
        keypair=Keypair.create_from_uri("//Miner"),
        nonces=nonces,
        authorise=lambda _: None,
        clock=clock,
        inventory=lambda: None,
        log_of=lambda *_: "",
    )

    async def ask(address, path="/ping"):
        said = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            said.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "headers": [], "client": (address, 1), "server": ("127.0.0.1", 1),
        }  # fmt: skip
        await app(scope, receive, send)
        headers = dict(said[0]["headers"])
        return said[0]["status"], json.loads(said[1]["body"]), headers

    ask.clock = clock
    return ask


async def test_an_address_that_asks_too_often_is_refused_before_anything_is_checked(ask):
    """A burst, then 429 with when to come again; others are not touched; time gives tokens."""
    for _ in range(BURST):
        assert (await ask("192.0.2.1", "/inventory"))[0] == 401
    status, body, headers = await ask("192.0.2.1", "/inventory")
    assert (status, body["code"]) == (429, "rate_limited")
    assert int(headers[b"retry-after"]) >= 1
    assert (await ask("192.0.2.1"))[0] == 429
    assert (await ask("192.0.2.2"))[0] == 200
    ask.clock.advance(1)
    answered = [(await ask("192.0.2.1"))[0] for _ in range(PER_S + 1)]
    assert answered == [200] * PER_S + [429]


def test_the_memory_of_addresses_is_bounded():
    """Whoever was heard longest ago is forgotten first."""
    pace = Pace(ManualClock(), burst=1)
    for number in range(MAX_ADDRESSES):
        assert pace.wait_s(f"address {number}") == 0
    assert pace.wait_s("address 1") > 0
    assert pace.wait_s("one more") == 0
    assert pace.wait_s("address 1") > 0
    assert pace.wait_s("address 0") == 0
