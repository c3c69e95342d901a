"""A connection that carried a websocket's handshake is good for no other call."""

from types import SimpleNamespace

import pytest

from chutes_core.validator.gateway.exchange import Exchange
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.reply import Reply
from chutes_core.wire.call import ResponseHead
from chutes_core.wire.frames import Frame, FrameKind


class Instance:
    """Answers by 403; what it is sent is not looked at."""

    def __init__(self) -> None:
        head = ResponseHead(status=403, headers=(("content-length", "0"),))
        payloads = (FrameKind.RESPONSE, head.model_dump_json().encode()), (FrameKind.END, b"{}")
        self._frames = [Frame(kind, payload) for kind, payload in payloads]

    async def send(self, kind: FrameKind, payload: bytes = b"") -> None: ...

    async def send_together(self, *frames: tuple[FrameKind, bytes]) -> None: ...

    async def receive(self, timeout_s: float | None = None) -> Frame:
        return self._frames.pop(0)


@pytest.mark.parametrize(("upgrade", "clean"), [(None, True), (object(), False)])
async def test_a_refused_handshakes_connection_is_not_kept(upgrade, clean, monkeypatch):
    """Its runner closes it behind any answer: another call on it would be lost, and sent again."""
    monkeypatch.setattr("chutes_core.validator.gateway.exchange.call_pairs", lambda call: ())
    call = SimpleNamespace(
        body=b"", head=b"{}", upgrade=upgrade, tail=None, streamed_in=0, paid_s=lambda most: 9.0
    )

    async def send(message: dict[str, object]) -> None: ...

    exchange = Exchange(Instance(), call, GatewayLimits())
    head = await exchange.ask()
    ending = await exchange.stream(head, Reply(send, "an-id", "GET"))
    assert ending.whole
    assert exchange.clean is clean
