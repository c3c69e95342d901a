"""Ids of a long run: kept in heaps, on disk once they are many, and compared without a mistake."""

import uuid
from collections import Counter
from random import Random

import pytest

from tests.bench.books import Books, compare
from tests.bench.ids import Ids


def _names(count, seed=1):
    chance = Random(seed)
    return [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(count)]


def _ids(folder, names):
    ids = Ids(folder)
    for name in names:
        ids.add(name)
    return ids


@pytest.mark.parametrize("write_bytes", [16, 80, 16 * 1024 * 1024])
def test_every_id_is_kept_as_often_as_it_came(tmp_path, monkeypatch, write_bytes):
    """Whether a heap is in memory, in its file or in both."""
    monkeypatch.setattr("tests.bench.ids.WRITE_BYTES", write_bytes)
    names = _names(3000)
    names += names[:7]
    ids = _ids(tmp_path / "ids", names)
    found = sum(ids.heaps(), Counter())
    assert len(ids) == 3007
    assert found == Counter(uuid.UUID(name).bytes for name in names)
    assert (tmp_path / "ids").exists() == (write_bytes < 16 * 1024 * 1024)


def test_what_is_no_id_is_refused(tmp_path):
    """A truncated or empty name is an error, not a silent other id."""
    for wrong in ("", "abc", "0b4deb3d-0ead-507e-8786-df31b4a8", "zz"):
        with pytest.raises(ValueError, match=r"no id|hexadecimal"):
            Ids(tmp_path).add(wrong)


def test_a_comparison_counts_what_is_missing_and_what_is_double(tmp_path):
    """Lost, charged twice, recorded twice, given twice, of no call: each is told, to the call."""
    names = _names(2000)
    books = Books(
        records=_ids(tmp_path / "records", [*names, names[1], _names(1, seed=2)[0]]),
        charged=_ids(tmp_path / "charged", [*names[3:], names[4]]),
        undrained=0,
        settled=True,
    )
    answered = _ids(tmp_path / "answered", [*names[:1900], names[0]])
    found = compare(answered, _ids(tmp_path / "calls", names), books)
    assert (found.answered, found.calls, found.records) == (1900, 2000, 2001)
    assert (found.lost, found.charged_twice, found.recorded_twice) == (3, 1, 1)
    assert (found.given_twice, found.unseen) == (1, 1)
