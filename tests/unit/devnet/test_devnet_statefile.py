"""A chain that is taken up from its file is the chain that was left."""

import random
import sqlite3

import pytest

from chutes_core.base.errors import Conflict, Invalid
from chutes_core.devnet.chain import Chain
from chutes_core.devnet.genesis import GenesisParams
from chutes_core.devnet.statefile import StateFile
from chutes_core.devnet.version import RuntimeVersion

KEPT = 8
PARAMS = GenesisParams(tempo=3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def opened(codec, path):
    """Return a function that opens the chain of the file; each is closed at the end."""
    files = []

    def open_chain(params=PARAMS):
        for file in files:
            file.close()
        file = StateFile(path, kept_blocks=KEPT)
        files.append(file)
        return Chain(codec, params, file=file)

    yield open_chain
    for file in files:
        file.close()


def everything(chain, number):
    """Return all of the state at a height."""
    state = chain.store.at(number)
    return {key: state.get(key) for key in state.keys(b"")}


def grow(chain, blocks):
    for _ in range(blocks):
        chain.produce(1_700_000_000_000 + chain.best.number * 1_000)


def test_blocks_state_and_finality_come_back(opened):
    """Hashes, every readable state and the finalized head are as before."""
    chain = opened()
    grow(chain, 20)
    hashes = [chain.block_at(number).hash for number in range(21)]
    states = {number: everything(chain, number) for number in range(20 - KEPT + 1, 21)}
    again = opened()
    assert [again.block_at(number).hash for number in range(21)] == hashes
    assert again.block_at(20) == chain.best
    assert {number: everything(again, number) for number in states} == states
    assert again.finalized_number == chain.finalized_number == 18
    grow(again, 1)
    assert again.best.parent_hash == hashes[-1]


def test_a_retracted_block_does_not_come_back(opened):
    """What was undone before the end stays undone."""
    chain = opened()
    grow(chain, 5)
    chain.retract(2, lose=True)
    before = chain.best.hash, everything(chain, 3)
    again = opened()
    assert (again.best.hash, everything(again, 3)) == before


def test_the_runtime_version_comes_back(opened):
    """An upgrade is part of the chain."""
    chain = opened()
    chain.change_version(RuntimeVersion(500, 2))
    grow(chain, 3)
    again = opened()
    assert again.versions.rows() == chain.versions.rows()
    assert again.versions.at(3) == RuntimeVersion(500, 2)
    assert again.versions.at(1).spec == 461


def test_the_file_is_refused_to_another_genesis(opened):
    """Other parameters make another chain; the hint says what to do."""
    opened()
    with pytest.raises(Invalid, match="other parameters") as refused:
        opened(GenesisParams(tempo=4))
    assert "first start" in refused.value.hint


def test_two_processes_cannot_share_it(opened, path):
    """The second one is told so."""
    opened()
    with pytest.raises(Conflict, match="another devnet"):
        StateFile(path, kept_blocks=KEPT)


def test_what_is_no_state_file_is_left_alone(path):
    """A file of another kind is refused and not touched."""
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    before = path.read_bytes()
    with pytest.raises(Invalid, match="no state file"):
        StateFile(path, kept_blocks=KEPT)
    assert path.read_bytes() == before


def test_a_torn_write_leaves_the_last_whole_block(opened, path):
    """Cut the log of an unclosed file anywhere: what comes back is a prefix of the chain."""
    chain = opened()
    grow(chain, 6)
    hashes = [chain.block_at(number).hash for number in range(7)]
    log = path.with_name(path.name + "-wal").read_bytes()
    main = path.read_bytes()
    dice = random.Random(7)
    for attempt in range(12):
        torn = path.with_name(f"torn-{attempt}.db")
        torn.write_bytes(main)
        cut = dice.randrange(len(log))
        torn.with_name(torn.name + "-wal").write_bytes(log[:cut])
        file = StateFile(torn, kept_blocks=KEPT)
        again = Chain(chain.codec, PARAMS, file=file)
        best = again.best.number
        assert [again.block_at(number).hash for number in range(best + 1)] == hashes[: best + 1]
        assert everything(again, best) == everything(chain, best)
        file.close()


def test_a_format_of_the_future_is_refused(opened, path):
    """A newer devnet's file is not misread."""
    chain = opened()
    chain._file.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '2' WHERE name = 'format'")
    db.close()
    with pytest.raises(Invalid, match="format 2"):
        StateFile(path, kept_blocks=KEPT)
