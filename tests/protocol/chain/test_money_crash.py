"""Killed at random moments under load, money is where it belongs; a few kills of many.

tests/bench/money_crash.py does the same for as many seeds as asked; what it printed is in
docs/measurements.
"""

import pytest
from money_crash import run

from chutes_core.devnet.launch import DevnetProcess


@pytest.mark.timeout(900)  # over the limits of its own waits
def test_killed_at_random_under_load(tmp_path):
    """Transfers are credited once, refunds paid once, weights set once an epoch, to the rao."""
    with DevnetProcess(block_seconds=0.2, tempo=20, dev_controls=True) as net:
        seen = run(net, tmp_path, seed=1, kills=6, numbers=(1, 2, 3))
    assert (seen.seed, seen.kills) == (1, 6)
    assert seen.transfers > 0
