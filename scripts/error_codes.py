"""The typed errors that a developer or caller can meet, read from the source.

Walks the calls `Kind("code", message, hint=…)` of the rooms that answer people. Invariant: one
entry for each code, with the longest hint that any of its raises gives; an f-string's fields
become `…`.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chutes_core.base import errors
from chutes_core.base.hints import HINTS
from chutes_core.validator.domain.statuses import status_of

ROOT = Path(__file__).resolve().parent.parent / "chutes_core"
HERE = ("cli", "sdk", "testing")
SERVERS = (
    *("validator/accounts", "validator/api", "validator/billing", "validator/catalog"),
    *("validator/gateway", "validator/launches"),
)
KINDS = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.ChutesError)
} | {"RateLimited": errors.Exhausted}


@dataclass(frozen=True)
class ErrorCode:
    """One code: where it comes from, as a status or ``here``, and its texts."""

    code: str
    status: str
    message: str
    hint: str


def error_codes(rooms: tuple[str, ...] = (*HERE, *SERVERS)) -> list[ErrorCode]:
    """Return the codes that are raised in these rooms, by name."""
    found: dict[str, ErrorCode] = {}
    for room in rooms:
        for one in _raised(ROOT / room, here=room in HERE):
            known = found.get(one.code)
            if known is None:
                found[one.code] = one
                continue
            statuses = dict.fromkeys([*known.status.split(", "), one.status])
            hint = max(known.hint, one.hint, key=len)
            found[one.code] = ErrorCode(one.code, ", ".join(statuses), known.message, hint)
    return [found[code] for code in sorted(found)]


def _raised(folder: Path, *, here: bool) -> Iterator[ErrorCode]:
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or len(node.args) < 2:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            code = node.args[0]
            if name not in KINDS or not isinstance(code, ast.Constant):
                continue
            if not isinstance(code.value, str):
                continue
            hint = next((one.value for one in node.keywords if one.arg == "hint"), None)
            shown = HINTS.get(code.value, "") if hint is None else _text(hint)
            kind = KINDS[name]
            status = "here" if here else str(status_of(kind(code.value, "")))
            yield ErrorCode(code.value, status, _text(node.args[1]), shown)


def _text(node: ast.expr) -> str:
    """Return a text as it stands in the source, with … for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "…"
