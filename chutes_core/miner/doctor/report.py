"""What the doctor found: one finding for each thing that it looked at, and what they come to.

Invariant: a finding that is not well carries what to do about it, and the exit code says whether a
miner would work here: 0 it would (warnings included), 4 it would not.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from chutes_core.base.errors import ChutesError

EXIT_WELL = 0
EXIT_UNWELL = 4
State = Literal["ok", "warn", "fail", "skip"]
_MARKS: dict[State, str] = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skip": "-   "}


@dataclass(frozen=True)
class Finding:
    """One check: its name, how it went, what was found, and the fix where it is not well."""

    check: str
    state: State
    found: str
    fix: str = ""

    def line(self) -> str:
        """Return it for a person."""
        fix = f"\n       fix: {self.fix}" if self.fix else ""
        return f"{_MARKS[self.state]}   {self.check}: {self.found}{fix}"


@dataclass(frozen=True)
class Report:
    """All findings in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """Return 0 where a miner would work here."""
        failed = any(finding.state == "fail" for finding in self.findings)
        return EXIT_UNWELL if failed else EXIT_WELL

    def text(self) -> str:
        """Return the report for a person."""
        failed = sum(1 for finding in self.findings if finding.state == "fail")
        warned = sum(1 for finding in self.findings if finding.state == "warn")
        lines = [finding.line() for finding in self.findings]
        end = f"{failed} of {len(self.findings)} checks failed, {warned} warn"
        return "\n".join([*lines, end if failed or warned else "all is well"])

    def as_json(self) -> dict[str, object]:
        """Return the report for a program."""
        return {
            "well": self.exit_code == EXIT_WELL,
            "findings": [vars(finding) for finding in self.findings],
        }


Check = Callable[[], Awaitable[Iterable[Finding]]]


async def run_check(name: str, check: Check) -> list[Finding]:
    """Return a check's findings; an error with a code becomes one that failed."""
    try:
        return list(await check())
    except ChutesError as error:
        return [Finding(name, "fail", f"{error.message} [{error.code}]", error.hint)]
