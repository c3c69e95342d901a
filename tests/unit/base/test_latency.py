"""What a process that answers callers asks of its interpreter."""

import json
import subprocess
import sys

SAID = """
import gc, json, sys
from chutes_core.base.latency import favour_latency
favour_latency()
class Loop: pass
one = Loop(); one.itself = one
import weakref
gone = weakref.ref(one)
del one
gc.collect()
print(json.dumps([gc.get_threshold()[0], gc.get_freeze_count() > 1000, sys.getswitchinterval(),
                  gc.isenabled(), gone() is None]))
"""


def test_it_collects_less_often_but_still_collects() -> None:
    """What was imported is left alone; what became garbage later is still found."""
    said = subprocess.run(
        [sys.executable, "-c", SAID], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    threshold, frozen, switch_s, enabled, found = json.loads(said)
    assert threshold > 700
    assert frozen
    assert switch_s < 0.005
    assert enabled
    assert found
