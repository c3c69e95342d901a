"""The thread that makes journal records durable: what it may close, and when."""

import os
from pathlib import Path

from chutes_core.validator.gateway import syncer
from chutes_core.validator.gateway.syncer import Syncer


def test_a_segment_that_ends_while_it_is_synced_is_synced_again_before_it_is_closed(
    tmp_path: Path, monkeypatch
):
    """What was written between the end of a sync and the next segment is not left to the kernel."""
    old, new = (
        os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT, 0o600) for name in ("old", "new")
    )
    synced: list[int] = []
    written = durable = 0

    def sync(fd: int) -> None:
        nonlocal written, durable
        synced.append(fd)
        if fd == old:
            durable = written
        if synced == [old]:  # before this thread goes on, the loop's writes a record and rotates
            written += 1
            one.follow(new)

    monkeypatch.setattr(syncer, "_make_durable", sync)
    one = Syncer(old, tmp_path, then=lambda: None)
    assert one.sync_now()
    assert one.sync_now()
    one.close()
    assert (written, durable) == (1, 1)
    assert new in synced
