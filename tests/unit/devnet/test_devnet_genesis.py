"""The genesis marker, block hashes, and what a block keeps."""

from hashlib import blake2b

import pytest

from chutes_core.base.errors import Invalid, NotFound
from chutes_core.devnet.era import Era, read_era
from chutes_core.devnet.metadata import DEFAULT_METADATA, load_metadata
from chutes_core.devnet.scale import Reader, compact

MARKER = "0x" + blake2b(b"chutes-devnet/1", digest_size=32).hexdigest()


def header_hash(header):
    """Recompute a block's hash as another party does, from the JSON header alone."""
    parts = [
        bytes.fromhex(header[name][2:]) for name in ("parentHash", "stateRoot", "extrinsicsRoot")
    ]
    encoded = parts[0] + compact(int(header["number"], 16)) + parts[1] + parts[2] + compact(0)
    return "0x" + blake2b(encoded, digest_size=32).hexdigest()


def test_header_0_carries_the_marker(net):
    """Parent hash zero, the marker as state root, and a hash that anyone recomputes."""
    first = net.chain.block_at(0)
    header = first.header_json()
    assert header["parentHash"] == "0x" + "00" * 32
    assert header["stateRoot"] == MARKER
    assert header["number"] == "0x0"
    assert header_hash(header) == "0x" + net.chain.genesis_hash.hex()


def test_every_header_hashes_to_its_block(net):
    """Blocks form a chain of hashes."""
    net.blocks(3)
    for number in range(1, net.chain.best.number + 1):
        block = net.chain.block_at(number)
        assert header_hash(block.header_json()) == "0x" + block.hash.hex()
        assert block.parent_hash == net.chain.block_at(number - 1).hash


def test_a_foreign_genesis_has_no_marker(make_net):
    """With foreign genesis everything works but the marker is absent."""
    foreign = make_net(foreign=True)
    assert foreign.chain.block_at(0).header_json()["stateRoot"] != MARKER
    assert foreign.register("//Miner1").error is None


def test_the_genesis_hash_depends_on_the_parameters_and_nothing_else(make_net):
    """Equal parameters, equal hash; any other parameter, another hash."""
    same = {make_net(tempo=10).chain.genesis_hash, make_net(tempo=10).chain.genesis_hash}
    others = {
        make_net(tempo=11).chain.genesis_hash,
        make_net(tempo=10, validators=1).chain.genesis_hash,
        make_net(tempo=10, foreign=True).chain.genesis_hash,
    }
    assert len(same) == 1
    assert len(same | others) == 4


def test_events_of_an_old_block_stay_readable(net):
    """System.Events at a block's height is that block's own."""
    outcome = net.register("//Miner1")
    net.blocks(5)
    view = net.chain.state_at(outcome.block)
    assert "NeuronRegistered" in {event["event_id"] for event in view.get("System", "Events")}
    newest = net.chain.state_at(net.chain.best.number).get("System", "Events")
    assert "NeuronRegistered" not in {event["event_id"] for event in newest}


def test_time_is_set_by_the_first_extrinsic(net):
    """Each block begins with Timestamp.set; Now holds its milliseconds."""
    block = net.chain.best
    inherent = net.codec.runtime.decode_extrinsic(block.extrinsics[0])
    now = net.chain.state_at(block.number).get("Timestamp", "Now")
    assert inherent["call"]["call_module"] == "Timestamp"
    assert inherent["call"]["call_args"][0]["value"] == now


@pytest.mark.parametrize("value", [0, 63, 64, 16_383, 16_384, 2**30 - 1, 2**30, 2**64 - 1])
def test_compact_integers_round_trip(value):
    """At every boundary of the encoding."""
    reader = Reader(compact(value))
    assert reader.compact() == value
    assert reader.remaining == 0


def test_a_reader_never_reads_beyond_its_end():
    """Truncated bytes are an error of their own."""
    with pytest.raises(Invalid):
        Reader(b"\x01").compact()
    with pytest.raises(Invalid):
        Reader(b"").compact()
    with pytest.raises(Invalid):
        Reader(b"\xff").octets()


@pytest.mark.parametrize(("raw", "period", "phase"), [("2500", 64, 2), ("00", 0, 0)])
def test_eras_decode_as_recorded(raw, period, phase):
    """The recorded era 0x2500 is period 64, phase 2."""
    assert read_era(Reader(bytes.fromhex(raw))) == Era(period, phase)


def test_an_impossible_era_is_refused():
    """A phase beyond the period is no era."""
    with pytest.raises(Invalid):
        read_era(Reader(bytes.fromhex("f1ff")))


def test_missing_metadata_names_the_command(tmp_path):
    """The hint is what to type."""
    with pytest.raises(NotFound) as caught:
        load_metadata(tmp_path / "none.json")
    assert "python scripts/fetch_metadata.py" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", '{"metadata": {}}', '{"metadata": {"v15_hex": "0x"}}'])
def test_a_file_that_is_not_the_metadata_is_refused(tmp_path, text):
    """Another file in its place is an error, not a crash."""
    path = tmp_path / "metadata.json"
    path.write_text(text)
    with pytest.raises(Invalid):
        load_metadata(path)


def test_the_default_path_lies_in_the_checkout():
    """Where scripts/fetch_metadata.py writes."""
    assert DEFAULT_METADATA.parts[-2:] == (".cache", "metadata.json")
