"""Frames that come together: what the short ways of a link give its sink, and in which order."""

import secrets

import pytest

from chutes_core.base.ids import new_id
from chutes_core.validator.gateway.plane.link import Link
from chutes_core.wire.frames import FrameCodec, FrameKind
from chutes_core.wire.sealing import PROVEN, ConnectionKeys, Preamble

RESPONSE, BODY, END = FrameKind.RESPONSE, FrameKind.BODY, FrameKind.END
ROOT = bytes(32)


class Wire:
    """A transport that only knows whether it was cut."""

    def __init__(self) -> None:
        self.cut = False

    def write(self, _data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.cut = True


class Taker:
    """A sink that notes what it gets; ``short`` says whether it takes the short ways."""

    def __init__(self, *, short: bool) -> None:
        self.short = short
        self.got: list[tuple[int, bytes] | str] = []
        self.at_once = 0

    def on_frame(self, kind, payload) -> None:
        self.got.append((int(kind), payload))

    def on_three(self, one, payload, two, more, three, last) -> bool:
        if self.short:
            self.at_once += 1
            self.got += [(one, payload), (two, more), (three, last)]
        return self.short

    def on_pieces(self, pieces) -> bool:
        if self.short:
            self.at_once += 1
            self.got += [(int(BODY), piece) for piece in pieces]
        return self.short

    def on_batch(self) -> None:
        self.got.append("batch")

    def on_lost(self, error) -> None:
        self.got.append(error.code)


@pytest.fixture(params=[False, True], ids=["one by one", "short"])
async def ends(request):
    """A link with its sink, and the instance's codec."""
    preamble = Preamble.build(ticket=bytes(32), launch_id=new_id(), generation=PROVEN)
    link, nonce = Link(ROOT, preamble), secrets.token_bytes(32)
    link.connection_made(Wire())
    link.data_received(nonce)
    keys = ConnectionKeys.derive(ROOT, validator_nonce=preamble.nonce, instance_nonce=nonce)
    link.sink = taker = Taker(short=request.param)
    return link, taker, FrameCodec.for_instance(keys)


def pieces(codec: FrameCodec, *bodies: bytes) -> bytes:
    return b"".join(codec.seal(BODY, body) for body in bodies)


async def test_messages_keep_their_order_however_they_are_given(ends) -> None:
    """Pieces before, between and behind other messages come in the order of the wire."""
    link, taker, codec = ends
    data = codec.seal(RESPONSE, b"head") + pieces(codec, b"a", b"b") + codec.seal(END, b"x")
    link.data_received(data + pieces(codec, b"c"))
    bodies = [(34, b"a"), (34, b"b")]
    assert taker.got == [(33, b"head"), *bodies, (35, b"x"), (34, b"c"), "batch"]
    assert taker.at_once == (2 if taker.short else 0)
    assert link.usable


async def test_what_came_before_a_damaged_frame_is_given_first(ends) -> None:
    """A frame that does not authenticate ends the connection behind the pieces before it."""
    link, taker, codec = ends
    damaged = bytearray(pieces(codec, b"a", b"b", b"c"))
    damaged[-1] ^= 1
    link.data_received(bytes(damaged))
    assert taker.got == [(34, b"a"), (34, b"b"), "bad_seal"]
    assert not link.usable


async def test_a_frame_in_two_parts_waits_for_its_rest(ends) -> None:
    """Whatever way a read cuts frames, each message comes once."""
    link, taker, codec = ends
    parts = ((RESPONSE, b"head"), (BODY, b"body"), (END, b""))
    data = codec.seal_together(*parts) + pieces(codec, b"a", b"b")
    for at in range(0, len(data), 7):
        link.data_received(data[at : at + 7])
    got = [one for one in taker.got if one != "batch"]
    assert got == [(33, b"head"), (34, b"body"), (35, b""), (34, b"a"), (34, b"b")]


async def test_three_messages_in_one_frame_are_an_answer_of_any_kinds(ends) -> None:
    """The link gives three messages as they are; what they mean is the sink's affair."""
    link, taker, codec = ends
    link.data_received(codec.seal_together((BODY, b"1"), (END, b""), (RESPONSE, b"2")))
    assert taker.got == [(34, b"1"), (35, b""), (33, b"2"), "batch"]
    assert taker.at_once == (1 if taker.short else 0)


async def test_pieces_of_a_stream_in_one_frame_are_given_at_once(ends) -> None:
    """A frame of pieces alone is as good as pieces that came in frames of their own."""
    link, taker, codec = ends
    bodies = [(BODY, b"%d" % number) for number in range(5)]
    data = codec.seal_together(*bodies)
    link.data_received(data)
    link.data_received(codec.seal(BODY, b"more") + codec.seal_together(*bodies))
    expected = [(34, payload) for _, payload in bodies]
    assert taker.got == [*expected, "batch", (34, b"more"), *expected, "batch"]
    assert taker.at_once == (3 if taker.short else 0)


async def test_pieces_with_the_end_in_one_frame_come_one_by_one(ends) -> None:
    """The END behind the last pieces comes last, and once."""
    link, taker, codec = ends
    link.data_received(codec.seal_together((BODY, b"1"), (BODY, b"2"), (BODY, b"3"), (END, b"x")))
    assert taker.got == [(34, b"1"), (34, b"2"), (34, b"3"), (35, b"x"), "batch"]


@pytest.mark.interpreted
async def test_a_whole_frame_of_no_known_kind_ends_the_connection(ends) -> None:
    """An unknown kind is refused on the short way as on the long one."""
    link, taker, codec = ends
    link.data_received(codec.seal(99, b""))
    assert taker.got == ["bad_frame"]
