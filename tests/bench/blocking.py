"""Which calls that block are made on a validator's event loop: none, by its invariant.

SQLite, requests (docker speaks through it), graval's verifier and its challenges, sleeps, child
processes and syncs of the disk are watched from inside of the process (probe.py installs it). What
counts is the thread, not the time: a call on the loop's own thread is noted with its callers.
"""

import os
import subprocess
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import requests

from chutes_core.validator.attest import challenges, verdicts
from chutes_core.validator.store.connection import Connection

CALLERS = 4
WATCHED: tuple[tuple[Any, str], ...] = (
    (Connection, "execute"),
    (requests.Session, "send"),
    (verdicts, "check"),
    (challenges, "build_challenge"),
    (subprocess.Popen, "__init__"),
    (time, "sleep"),
    (os, "fsync"),
    (os, "fdatasync"),
)


class Blocking:
    """Notes watched calls of one thread, the one that makes this."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._noted: Counter[str] = Counter()
        for place, name in WATCHED:
            setattr(place, name, self._watched(f"{place.__name__}.{name}", getattr(place, name)))

    def taken(self) -> dict[str, int]:
        """Return what was noted, by the call and its callers; the notes begin anew."""
        noted, self._noted = self._noted, Counter()
        return dict(noted)

    def _watched(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*given: Any, **named: Any) -> Any:
            if threading.get_ident() == self._thread:
                stack = traceback.extract_stack(limit=CALLERS + 1)[:-1]
                came = " < ".join(f"{one.name} ({one.filename[-40:]})" for one in reversed(stack))
                self._noted[f"{what} < {came}"] += 1
            return call(*given, **named)

        return watched
