"""The floor under the gateway: what asyncio on uvloop with httptools costs, and what sealing adds.

    bare PLACE | sealed-bare PLACE

`bare` passes HTTP through: a parser on each side finds where messages end, the bytes go on as they
came, connections to the origin are kept. `sealed-bare` does the same towards the origin in sealed
frames, one out and one back for a call (TOGETHER), with the heads that it has made before kept.
Neither knows a key, a hold, a limit, back-pressure, a deadline or a journal, and neither is fit for
anything but this comparison: what the gateway costs beyond them is what it does beyond them.
"""

import asyncio
import json
import sys
from pathlib import Path

import httptools
import orjson
import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from chutes_core.wire.frames import FrameKind
from chutes_core.wire.sealing import (
    NONCE_BYTES,
    PROVEN,
    ConnectionKeys,
    Opener,
    Preamble,
    Sealer,
)
from chutes_core.wire.together import TOGETHER, pack_together, unpack_together

CALL, RESPONSE, BODY, END = (
    int(k) for k in (FrameKind.CALL, FrameKind.RESPONSE, FrameKind.BODY, FrameKind.END)
)
CHUNKED = b"transfer-encoding: chunked\r\n"
CALLS: dict[bytes, bytes] = {}  # what was made before, of requests and of answers
HEADS: dict[bytes, tuple[bytes, bool]] = {}


class Front(asyncio.Protocol):
    """A caller's connection: one request at a time."""

    def __init__(self, backs: "Backs") -> None:
        self.backs = backs
        self.parser = httptools.HttpRequestParser(self)
        self.came: list[bytes] = []
        self.whole = False
        self.gone = False

    def connection_made(self, transport) -> None:
        self.transport = transport

    def connection_lost(self, exc) -> None:
        self.gone = True

    def data_received(self, data: bytes) -> None:
        self.came.append(data)
        self.parser.feed_data(data)
        if self.whole:
            self.whole = False
            request = self.came[0] if len(self.came) == 1 else b"".join(self.came)
            self.came = []
            self.backs.send(self, request)

    def on_message_complete(self) -> None:
        self.whole = True


class Backs:
    """Connections to the origin; what is free waits in a list."""

    def __init__(self, kind, place: list) -> None:
        self.kind, self.place = kind, place
        self.free: list = []
        self.opening: set = set()

    def send(self, front: Front, request: bytes) -> None:
        if self.free:
            self.free.pop().send(front, request)
        else:
            task = asyncio.ensure_future(self.open(front, request))
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)

    async def open(self, front: Front, request: bytes) -> None:
        back = self.kind(self)
        await asyncio.get_running_loop().create_connection(lambda: back, "127.0.0.1", back.port)
        await back.ready
        back.send(front, request)


class Plain(asyncio.Protocol):
    """One connection to the origin in plain HTTP."""

    def __init__(self, backs: Backs) -> None:
        self.backs = backs
        self.port = backs.place[0]
        self.parser = httptools.HttpResponseParser(self)
        self.ready = asyncio.get_running_loop().create_future()
        self.whole = False

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.ready.set_result(None)

    def send(self, front: Front, request: bytes) -> None:
        self.front = front
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        if not self.front.gone:
            self.front.transport.write(data)
        if self.whole:
            self.whole = False
            self.backs.free.append(self)

    def on_message_complete(self) -> None:
        self.whole = True


class Sealed(asyncio.Protocol):
    """One connection to the origin in sealed frames."""

    def __init__(self, backs: Backs) -> None:
        _, self.port, launch_id, ticket, root = backs.place
        self.backs = backs
        self.root = bytes.fromhex(root)
        self.preamble = Preamble.build(
            ticket=bytes.fromhex(ticket), launch_id=launch_id, generation=PROVEN
        )
        self.ready = asyncio.get_running_loop().create_future()
        self.sealer: Sealer | None = None
        self.rest = b""
        self.chunked = False

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(self.preamble.to_bytes())

    def agree(self, nonce: bytes) -> None:
        keys = ConnectionKeys.derive(
            self.root, validator_nonce=self.preamble.nonce, instance_nonce=nonce
        )
        self.sealer, self.opener = Sealer(keys.to_instance), Opener(keys.to_validator)
        self.ready.set_result(None)

    def send(self, front: Front, request: bytes) -> None:
        self.front = front
        at = request.index(b"\r\n\r\n") + 4
        head = request[:at]
        call = CALLS.get(head)
        if call is None:
            call = CALLS[head] = call_of(head)
        plain = b"%c%b" % (
            TOGETHER,
            pack_together(((CALL, call), (BODY, request[at:]), (END, b""))),
        )
        header = (len(plain) + 16).to_bytes(4, "big")
        self.transport.write(header + self.sealer.seal(plain, header))

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        if self.sealer is None:
            if len(data) < NONCE_BYTES:
                self.rest = data
                return
            self.agree(data[:NONCE_BYTES])
            data = data[NONCE_BYTES:]
        out: list[bytes] = []
        bodies: list[bytes] = []
        ended = False
        for kind, payload in self.opened(data):
            if kind == BODY:
                bodies.append(payload)
            elif kind == RESPONSE:
                known = HEADS.get(payload)
                if known is None:
                    known = HEADS[payload] = head_of(payload)
                out.append(known[0])
                self.chunked = known[1]
            else:
                ended = True
        if bodies:
            body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
            out.append(b"%x\r\n%b\r\n" % (len(body), body) if self.chunked else body)
        if ended:
            if self.chunked:
                out.append(b"0\r\n\r\n")
            self.backs.free.append(self)
        if out and not self.front.gone:
            self.front.transport.write(b"".join(out))

    def opened(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the messages of the frames that are now whole."""
        at, size = 0, len(data)
        messages: list[tuple[int, bytes]] = []
        while size - at >= 4:
            begin = at + 4
            header = data[at:begin]
            end = begin + int.from_bytes(header, "big")
            if end > size:
                break
            plain = self.opener.open(data[begin:end], header)
            at = end
            if plain[0] == TOGETHER:
                messages += unpack_together(plain, 1)
            else:
                messages.append((plain[0], plain[1:]))
        self.rest = data[at:]
        return messages


def call_of(head: bytes) -> bytes:
    """Return the payload of the CALL frame of a request's head."""
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = [line.lower().split(": ", 1) for line in lines]
    return orjson.dumps({"path": first.split(" ")[1], "headers": headers})


def head_of(response: bytes) -> tuple[bytes, bool]:
    """Return the head of an answer as HTTP, and whether its body is chunked."""
    said = orjson.loads(response)
    lines = [f"HTTP/1.1 {said['status']} OK", *(f"{n}: {v}" for n, v in said["headers"])]
    chunked = not any(name == "content-length" for name, _ in said["headers"])
    head = "\r\n".join(lines).encode() + b"\r\n"
    return head + (CHUNKED if chunked else b"") + b"\r\n", chunked


async def main(kind: type[Plain] | type[Sealed], place: list) -> None:
    backs = Backs(kind, place)
    server = await asyncio.get_running_loop().create_server(
        lambda: Front(backs), "127.0.0.1", 0, backlog=1024
    )
    print(json.dumps([server.sockets[0].getsockname()[1], "", "none"]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare", where]:
            uvloop.run(main(Plain, json.loads(where)))
        case ["sealed-bare", where]:
            uvloop.run(main(Sealed, json.loads(where)))
        case _:
            sys.exit(__doc__)
