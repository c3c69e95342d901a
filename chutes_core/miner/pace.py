"""How often one address may ask this miner, whoever it says it is.

Path: uvicorn -> here -> SignedASGI. Checking a signature costs the loop that also carries calls, so
a stranger who sends many bad ones is refused before. Invariant: what is refused here costs nothing
but its answer, and the memory of addresses is bounded (the one heard longest ago goes).
"""

import json
from collections import OrderedDict

from chutes_core.base.clock import Clock
from chutes_core.wire.neuron_http import App, Receive, Scope, Send

PER_S = 50
BURST = 200
MAX_ADDRESSES = 4_096


class Pace:
    """A bucket of tokens for each address: `PER_S` new ones a second, `BURST` at most."""

    def __init__(
        self, clock: Clock, *, per_s: int = PER_S, burst: int = BURST, most: int = MAX_ADDRESSES
    ) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst = burst
        self._most = most
        self._left: OrderedDict[str, tuple[float, int]] = OrderedDict()  # tokens, at which time

    def wait_s(self, address: str) -> float:
        """Take a token and return 0; where there is none, return when there will be one."""
        now_us = self._clock.monotonic_us()
        tokens, at_us = self._left.pop(address, (float(self._burst), now_us))
        tokens = min(float(self._burst), tokens + (now_us - at_us) * self._per_s / 1e6)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) / self._per_s
        self._left[address] = (tokens if wait_s else tokens - 1, now_us)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return wait_s


class Paced:
    """An ASGI application behind a pace."""

    def __init__(self, app: App, pace: Pace) -> None:
        self._app = app
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 429."""
        client = scope.get("client")
        wait_s = self._pace.wait_s(str(client[0])) if scope["type"] == "http" and client else 0.0
        if not wait_s:
            await self._app(scope, receive, send)
            return
        body = {
            "detail": "this address asks more often than a miner answers",
            "code": "rate_limited",
            "hint": "wait as long as Retry-After says",
        }
        headers = [
            (b"content-type", b"application/json"),
            (b"retry-after", str(int(wait_s) + 1).encode()),
        ]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})
