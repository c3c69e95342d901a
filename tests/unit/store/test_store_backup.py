"""A backup of a running validator, restored elsewhere, loses nothing up to its instant."""

import threading

import pytest

from chutes_core.base.errors import Conflict, NotFound
from chutes_core.validator.backup import main, restore, save
from chutes_core.validator.billing.settle import Settlement
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import user_credit
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.store.database import Store

RATE = 3_600_000_000  # one rao a microsecond


def call(number):
    return Invocation(
        worker="w",
        sequence=0,
        invocation_id=f"i{number}",
        user_id="alice",
        key_id="k",
        chute_id="c",
        launch_id="l",
        rate_id="r",
        rao_per_hour=RATE,
        hold_rao=100,
        free=False,
        started_at_us=1,
        usage_us=10,
        bytes_in=0,
        bytes_out=0,
        attempts=1,
        status=200,
        outcome="ok",
    )


def open_both(folder):
    return Store(folder / "validator.sqlite"), Journal(folder / "journal" / "w", "w")


def test_a_backup_taken_while_calls_are_settled_loses_none(tmp_path):
    """Whatever the store had not drained at the backup's instant is in the journal's copy."""
    live, backup, other = tmp_path / "live", tmp_path / "backup", tmp_path / "other"
    store, journal = open_both(live)
    (live / "vault.key").write_bytes(b"k" * 32)
    (live / "registry-token.key").write_bytes(b"pem")
    stop = threading.Event()
    written = []

    def work():
        number = 0
        while not stop.is_set():
            written.append(journal.append(call(number)))
            number += 1
            if number % 7 == 0:
                Settlement(store, batch=3).drain(journal)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for attempt in range(3):
            while len(written) < 200 * (attempt + 1):
                stop.wait(0.001)
            before = len(written)
            save(live, backup / str(attempt))
            restore(backup / str(attempt), other / str(attempt))
            again, its_journal = open_both(other / str(attempt))
            Settlement(again).drain(its_journal)
            settled = again.invocations.drained_of("w")
            assert settled >= before - 1
            assert again.ledger.balance(user_credit("alice")) == -10 * settled
            assert again.ledger.total() == 0
            its_journal.close()
            again.close()
            assert (other / str(attempt) / "vault.key").read_bytes() == b"k" * 32
            assert (other / str(attempt) / "registry-token.key").read_bytes() == b"pem"
    finally:
        stop.set()
        thread.join()
        journal.close()
        store.close()


def test_nothing_is_written_over(tmp_path):
    """Neither a backup nor a store that is there; and a folder without either is refused."""
    store, journal = open_both(tmp_path / "live")
    journal.close()
    store.close()
    save(tmp_path / "live", tmp_path / "backup")
    with pytest.raises(Conflict, match="backup_exists"):
        save(tmp_path / "live", tmp_path / "backup")
    with pytest.raises(Conflict, match="store_exists"):
        restore(tmp_path / "backup", tmp_path / "live")
    with pytest.raises(NotFound, match="no_store"):
        save(tmp_path / "nowhere", tmp_path / "b2")
    place = ["--data-dir", str(tmp_path / "new"), "--folder", str(tmp_path / "backup")]
    assert main(["restore", *place]) == 0
    assert main(["restore", *place]) == 1
