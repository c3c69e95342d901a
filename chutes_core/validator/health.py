"""What is wrong with this validator now, by code, and a few figures; for its operator's monitor.

Every loop's last call is noted here (base/loops), and so is the coldkey that pays for weights
(feewatch). Served at `GET /health` and, for Prometheus, at `GET /health/metrics`. Invariants: a
problem is there from the first call that failed until the next that did not; only codes and hints
are shown, never a message, since messages name nodes and files.
"""

import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError
from chutes_core.base.hints import HINTS

INTERNAL = "internal"
_PREFIX = "chutes_validator_"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, its code, what to do, since when, how often in a row."""

    source: str
    code: str
    hint: str
    since_s: int
    times: int = 1


class Health:
    """Problems by source; safe to call from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._problems: dict[str, Problem] = {}
        self._figures: dict[str, int] = {}
        self._failures: Counter[str] = Counter()

    def note(self, source: str, error: Exception | None) -> None:
        """Note how a call of a loop ended; None where it did well."""
        if error is None:
            self.clear(source)
            return
        with self._lock:
            self._failures[source] += 1
        if isinstance(error, ChutesError):
            self.report(source, error.code, error.hint)
        else:
            self.report(source, INTERNAL, "see the log: this is a bug")

    def report(self, source: str, code: str, hint: str = "") -> None:
        """Say that something is wrong at a source."""
        with self._lock:
            known = self._problems.get(source)
            if known is not None and known.code == code:
                self._problems[source] = replace(known, times=known.times + 1)
            else:
                hint = hint or HINTS.get(code, "")
                self._problems[source] = Problem(source, code, hint, self._clock.now_s())

    def clear(self, source: str) -> None:
        """Say that a source is well."""
        with self._lock:
            self._problems.pop(source, None)

    def figure(self, name: str, value: int) -> None:
        """Keep a figure; the newest value counts."""
        with self._lock:
            self._figures[name] = value

    def problems(self) -> tuple[Problem, ...]:
        """Return what is wrong now, by source."""
        with self._lock:
            return tuple(self._problems[source] for source in sorted(self._problems))

    def view(self) -> dict[str, Any]:
        """Return the answer of GET /health."""
        problems = self.problems()
        with self._lock:
            figures = dict(sorted(self._figures.items()))
        shown = [
            {
                "source": problem.source,
                "code": problem.code,
                "hint": problem.hint,
                "since_s": problem.since_s,
                "times": problem.times,
            }
            for problem in problems
        ]
        return {"ok": not problems, "problems": shown, "figures": figures}

    def metrics(self) -> str:
        """Return everything in Prometheus' text format (exposition format 0.0.4)."""
        problems = self.problems()
        with self._lock:
            figures, failures = sorted(self._figures.items()), sorted(self._failures.items())
        lines = [f"# TYPE {_PREFIX}healthy gauge", f"{_PREFIX}healthy {int(not problems)}"]
        lines.append(f"# TYPE {_PREFIX}problem gauge")
        lines += [f'{_PREFIX}problem{{source="{p.source}",code="{p.code}"}} 1' for p in problems]
        lines.append(f"# TYPE {_PREFIX}loop_failures_total counter")
        lines += [
            f'{_PREFIX}loop_failures_total{{loop="{name}"}} {count}' for name, count in failures
        ]
        for name, value in figures:
            lines += [f"# TYPE {_PREFIX}{name} gauge", f"{_PREFIX}{name} {value}"]
        return "\n".join(lines) + "\n"
