"""From an HTTP answer to a typed error.

Every server of ours answers an error with ``{"detail", "code", "hint"}``; a proxy in between may
answer anything. Invariant: whatever comes, the caller gets a ChutesError with a code, the status
in ``facts["http_status"]``, and never the whole of a foreign page.
"""

import json
from collections.abc import Mapping
from typing import Any

from chutes_core.base import errors
from chutes_core.wire.call import HEADER_INVOCATION

_MAX_DETAIL = 2000

_BY_STATUS: dict[int, type[errors.ChutesError]] = {
    400: errors.Invalid,
    401: errors.Unauthenticated,
    402: errors.PaymentRequired,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    415: errors.Invalid,
    422: errors.Invalid,
    503: errors.Unavailable,
    504: errors.TimedOut,
}


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> errors.ChutesError:
    """Return the error that an answer with a status of 400 or more stands for."""
    document = _document(body)
    message = _text(document.get("detail")) or f"the server answered {status}"
    code = str(document.get("code") or f"http_{status}")
    hint = str(document.get("hint") or "")
    facts: dict[str, Any] = {"http_status": status}
    if invocation_id := headers.get(HEADER_INVOCATION):
        facts["invocation_id"] = invocation_id
    if status == 429:
        wait_s = _seconds(headers.get("retry-after"))
        hint = hint or f"try again in {wait_s} s"
        return errors.Exhausted(code, message, hint=hint, retry_after_s=wait_s, **facts)
    kind = _BY_STATUS.get(status, errors.ProtocolError if status >= 500 else errors.Invalid)
    return kind(code, message, hint=hint, **facts)


def unreachable(url: str, error: Exception) -> errors.Unavailable:
    """Return the error for a server that gave no answer at all."""
    reason = str(error) or type(error).__name__
    return errors.Unavailable(
        "unreachable",
        f"no answer from {url}: {reason}",
        hint="is the address right (CHUTES_API_URL), and is the validator up?",
    )


def broken_off(error: Exception, *, invocation_id: str | None = None) -> errors.ProtocolError:
    """Return the error for an answer that began and did not end."""
    facts = {} if invocation_id is None else {"invocation_id": invocation_id}
    return errors.ProtocolError(
        "broken_off",
        f"the answer ended early: {type(error).__name__}",
        hint="what came so far is incomplete; call again",
        http_status=200,
        **facts,
    )


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _text(detail: Any) -> str:
    """Return a detail as text; FastAPI's own validation errors are a list of places."""
    if isinstance(detail, list):
        places = [item for item in detail if isinstance(item, dict)]
        return "; ".join(
            f"{'.'.join(str(part) for part in item.get('loc', ()))}: {item.get('msg', '')}"
            for item in places
        )[:_MAX_DETAIL]
    return str(detail)[:_MAX_DETAIL] if detail else ""


def _seconds(value: str | None) -> int:
    return int(value) if value and value.isascii() and value.isdigit() else 1
