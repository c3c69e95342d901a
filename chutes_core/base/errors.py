"""The tree of typed errors: every failure that a person can meet has a code and a hint.

Services raise these; `validator/api/errors.py` and `cli/main.py` are the only places that turn
them into a status or an exit code. Invariant: a message never holds a secret, and `code` is a
stable snake_case identifier that clients may compare with.
"""

from chutes_core.base.hints import HINTS


class ChutesError(Exception):
    """Base of all errors of this project.

    Args:
        code: stable snake_case identifier, e.g. ``insufficient_balance``.
        message: what happened, in one sentence, without secrets.
        hint: what to do next; without one, that of the code (base/hints), if there is any.
        facts: values a program may want (ids, limits), JSON-serialisable.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", **facts: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint or HINTS.get(code, "")
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]" + (f" ({self.hint})" if self.hint else "")


class Invalid(ChutesError):
    """The input is malformed or breaks a rule of its schema (HTTP 422, or 413 when too large)."""


class TooLarge(Invalid):
    """The input is over a size limit (HTTP 413)."""


class Denied(ChutesError):
    """The caller is unknown or may not do this."""


class Unauthenticated(Denied):
    """Nobody is proven to be calling: missing, wrong, stale or replayed credentials (HTTP 401)."""


class Forbidden(Denied):
    """The caller is known and lacks the right (HTTP 403)."""


class PaymentRequired(Denied):
    """The caller's balance does not cover the call (HTTP 402)."""


class NotFound(ChutesError):
    """What was named does not exist, or is not visible to the caller (HTTP 404)."""


class Conflict(ChutesError):
    """The state does not allow it: it exists already, or has moved on (HTTP 409)."""


class Exhausted(ChutesError):
    """A rate, capacity or quota is used up for now (HTTP 429).

    ``retry_after_s`` (seconds) says when another try makes sense.
    """

    def __init__(
        self, code: str, message: str, *, hint: str = "", retry_after_s: int = 1, **facts: object
    ) -> None:
        super().__init__(code, message, hint=hint, **facts)
        self.retry_after_s = retry_after_s


class Unavailable(ChutesError):
    """It would work, but not now: no instance, a full disk, a peer that is down (HTTP 503)."""


class TimedOut(Unavailable):
    """A deadline passed (HTTP 504)."""


class ProtocolError(ChutesError):
    """A peer sent bytes that break the protocol (HTTP 502 where it was an upstream's)."""


class ChainError(ChutesError):
    """The chain refused an extrinsic or cannot be read (HTTP 502)."""
