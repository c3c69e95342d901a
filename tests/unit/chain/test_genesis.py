"""The devnet marker: header 0 must carry it and hash to the genesis hash."""

from hashlib import blake2b

import pytest

from chutes_core.base.errors import ProtocolError
from chutes_core.chain.genesis import DEVNET_STATE_ROOT, header_hash, is_devnet_header


def header(**changes):
    """Return header 0 of a devnet."""
    return {
        "parentHash": "0x" + "00" * 32,
        "number": "0x0",
        "stateRoot": DEVNET_STATE_ROOT,
        "extrinsicsRoot": "0x" + "11" * 32,
        "digest": {"logs": []},
    } | changes


def test_marker_and_hash_make_a_devnet():
    """A header 0 with the marker that hashes to the genesis hash is a devnet's."""
    zero = header()
    assert is_devnet_header(zero, header_hash(zero))


def test_hash_is_the_blake2b_of_the_scale_header():
    """The hash covers parent, compact number, both roots and the digest, in this order."""
    raw = b"\0" * 32 + b"\0" + bytes.fromhex(DEVNET_STATE_ROOT[2:]) + b"\x11" * 32 + b"\0"
    assert header_hash(header()) == "0x" + blake2b(raw, digest_size=32).hexdigest()


def test_digest_items_and_large_numbers_are_encoded():
    """Digest items follow their compact count, and a number above 63 takes more bytes."""
    shown = header(number="0x1234567", digest={"logs": ["0x0642", "0x05"]})
    raw = (
        b"\0" * 32
        + (0x1234567 << 2 | 2).to_bytes(4, "little")
        + bytes.fromhex(DEVNET_STATE_ROOT[2:])
        + b"\x11" * 32
        + b"\x08\x06\x42\x05"
    )
    assert header_hash(shown) == "0x" + blake2b(raw, digest_size=32).hexdigest()


def test_marker_under_another_genesis_hash_is_refused():
    """A node that shows the marker for another chain's genesis hash is not believed."""
    assert not is_devnet_header(header(), "0x" + "22" * 32)


def test_other_state_root_is_no_devnet():
    """A chain without the marker is no devnet, whatever it hashes to."""
    other = header(stateRoot="0x" + "33" * 32)
    assert not is_devnet_header(other, header_hash(other))


def test_marker_in_a_later_block_is_no_devnet():
    """Only header 0 can carry the marker."""
    later = header(number="0x1")
    assert not is_devnet_header(later, header_hash(later))


def test_a_header_without_state_root_is_no_devnet():
    """What shows no marker has none."""
    bare = header()
    del bare["stateRoot"]
    assert not is_devnet_header(bare, "0x" + "22" * 32)


@pytest.mark.parametrize(
    "broken",
    [{"number": None}, {"digest": {}}, {"parentHash": "0x00"}, {"extrinsicsRoot": "nonsense"}],
)
def test_unreadable_header_is_a_typed_error(broken):
    """A header that cannot be read is the node's fault and says so."""
    with pytest.raises(ProtocolError, match="bad_header"):
        is_devnet_header(header(**broken), "0x" + "22" * 32)
