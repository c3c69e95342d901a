"""The listener against peers that hold no keys, in process: nothing they do reaches a session."""

import asyncio
import uuid

import pytest

from chutes_core.runner import server as server_module
from chutes_core.runner.identity import Identity
from chutes_core.runner.server import Listener
from chutes_core.runner.session import Instance
from chutes_core.wire.connection import open_connection
from chutes_core.wire.frames import FrameKind
from chutes_core.wire.sealing import UNPROVEN, KeyPair, Preamble, agree_root

LAUNCH = str(uuid.UUID(int=9))
TICKET = b"t" * 32


class Place:
    """A listening instance without chute or provers, and the validator's keys for it."""

    def __init__(self, max_connections):
        self.keys = KeyPair.generate()
        self.identity = Identity(LAUNCH, self.keys.public.hex())
        # only keys are needed by what these peers do
        instance = Instance(self.identity, *[None] * 6)  # type: ignore[arg-type]
        self.listener = Listener(instance, max_connections)
        self.port = 0

    async def open(self):
        root = agree_root(
            self.keys,
            bytes.fromhex(self.identity.public_key),
            launch_id=LAUNCH,
            validator_public=self.keys.public,
        )
        return await open_connection(
            "127.0.0.1",
            self.port,
            root=root,
            ticket=TICKET,
            launch_id=LAUNCH,
            generation=UNPROVEN,
        )

    async def raw(self, data=b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        return reader, writer

    async def answer_to(self, data, size=-1):
        """What comes back until the end; a reset counts as an end."""
        reader, writer = await self.raw(data)
        try:
            return await asyncio.wait_for(reader.read(size), 60)
        except ConnectionResetError:
            return b""
        finally:
            writer.transport.abort()


@pytest.fixture
async def place():
    made = Place(max_connections=2)
    made.port = await made.listener.listen("127.0.0.1", 0)
    yield made
    await made.listener.close()


async def still_works(place):
    connection = await place.open()
    await connection.send(FrameKind.PING, b"?")
    assert (await connection.receive(60)).payload == b"?"
    await connection.close()


def preamble():
    return Preamble.build(ticket=TICKET, launch_id=LAUNCH, generation=UNPROVEN).to_bytes()


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n" * 20, b"\0" * 200, b"CHU1" + b"\xff" * 200]
)
async def test_what_is_no_preamble_gets_nothing(place, data):
    """Other protocols and noise are closed without a byte."""
    assert await place.answer_to(data) == b""
    await still_works(place)


async def test_a_peer_that_says_nothing_is_closed(place, monkeypatch):
    """The preamble has a deadline."""
    monkeypatch.setattr(server_module, "PREAMBLE_S", 0.05)
    assert await place.answer_to(b"CHU1") == b""
    await still_works(place)


async def test_a_preamble_without_a_first_frame_is_closed(place, monkeypatch):
    """Who shows no key in time gets the nonce and then the end."""
    monkeypatch.setattr(server_module, "FIRST_FRAME_S", 0.05)
    assert len(await place.answer_to(preamble())) == 32
    await still_works(place)


@pytest.mark.parametrize(
    "frame", [b"\0\0\0\x20" + bytes(range(32)), b"\xff" * 64, b"\0\0\0\x01" + b"x" * 16]
)
async def test_frames_without_keys_are_never_read(place, frame):
    """A forged frame ends the connection, and another connection works."""
    reader, writer = await place.raw(preamble())
    await reader.readexactly(32)
    writer.write(frame)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await asyncio.wait_for(reader.readexactly(1000), 60)
    writer.transport.abort()
    await still_works(place)


async def test_connections_over_the_limit_are_closed_unread(place):
    """With two open connections a third gets nothing; a place comes free with an end."""
    first, second = await place.open(), await place.open()
    assert await place.answer_to(preamble()) == b""
    await first.send(FrameKind.PING, b"1")
    assert (await first.receive(60)).payload == b"1"
    await first.close()
    await second.send(FrameKind.PING, b"2")
    assert (await second.receive(60)).payload == b"2"
    await second.close()


async def test_closing_ends_every_connection(place):
    """Nobody is left hanging when the instance ends."""
    connection = await place.open()
    await connection.send(FrameKind.PING, b"1")
    await connection.receive(60)
    await place.listener.close()
    assert not (await asyncio.wait_for(connection._reader.read(), 60))
    await connection.close()


async def test_root_0_is_forgotten_with_the_proof():
    """After rekeying neither the old root nor the private key is reachable from the identity."""
    keys = KeyPair.generate()
    identity = Identity(LAUNCH, keys.public.hex())
    old = identity._root
    identity.rekey(b"answers")
    held = [value for value in vars(identity).values() if isinstance(value, bytes)]
    assert old not in held
    assert len(held) == 1
