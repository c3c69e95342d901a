"""How long tests with real processes wait: a bound on a hang, never a statement about speed.

Every wait ends as soon as what it waits for is there, so on a quick machine patience costs nothing.
"""

import pytest

PATIENCE_S = 180
CALL_S = 150.0  # an HTTP call: over `cold_wait_s`, which a caller of a cold chute may wait
LEAST_LIMIT_S = 900


def give_time(items):
    """Give every test time for its network's start and for all of its waits together."""
    for item in items:
        own = item.get_closest_marker("timeout")
        if own is None or own.args[0] < LEAST_LIMIT_S:
            item.add_marker(pytest.mark.timeout(LEAST_LIMIT_S), append=False)
