"""Invocation ids without a system call each.

Path: fast draws one a call. Invariant: random uuid4s (RFC 9562, 5.4), none twice.
"""

import secrets
from typing import Final

_IDS: Final = 256
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class FreshIds:
    """Draws random bytes for many ids at once."""

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def __call__(self) -> str:
        """Return a fresh id."""
        if self._at >= len(self._digits):
            self._digits, self._at = secrets.token_bytes(16 * _IDS).hex(), 0
        at = self._at
        self._at = at + 32
        d = self._digits[at : at + 32]
        return f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{_VARIANTS[d[16]]}{d[17:20]}-{d[20:]}"
