"""What a connection needs of whoever answers its current request.

Path: http -> handler (fast_call or bridge). Invariant: a handler is asked by one connection alone,
for one request, until it says that this is answered or cut.
"""

from typing import Protocol


class Handler(Protocol):
    """Answers one request."""

    @property
    def begun(self) -> bool:
        """Tell whether a byte of the answer has been sent."""
        ...

    @property
    def answers_after_eof(self) -> bool:
        """Tell whether an answer still goes out to a caller who has closed their side.

        A call is stopped at its instance, for a caller who has gone looks just the same.
        """
        ...

    def on_body(self) -> None:
        """More of the body has come, or its end."""
        ...

    def on_writable(self, *, writable: bool) -> None:
        """The caller reads more slowly than we write, or has caught up."""
        ...

    def on_deadline(self, now: float) -> None:
        """The time that the handler set on the connection is over."""
        ...

    def on_caller_left(self) -> None:
        """Nobody waits for the answer any more."""
        ...
