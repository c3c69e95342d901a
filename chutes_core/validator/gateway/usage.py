"""How many tokens an OpenAI-style answer says it used, read from its last bytes alone.

Path: fast_call and exchange feed the tail while pieces pass; metering reads it once at the end.
Invariants: no piece is parsed while it passes; a tail holds at most 2 * KEPT_BYTES; what is
recorded never exceeds what the gateway itself saw (a token is at least a byte, in and out). Calls
are paid by time: tokens are what the instance claims, for caller and owner to read, and no money
hangs on them.
"""

from typing import NamedTuple

import orjson

from chutes_core.validator.domain.chutes import Cord

KEPT_BYTES = 4096
MAX_TRIES = 8  # objects named usage that are looked at, from the end
MAX_OBJECT_BYTES = 1024  # of one: Python walks it byte by byte, on the loop
PATHS = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/embeddings"))
_NAME = b'"usage"'
_MAX_TOKENS = 2**53


class Tokens(NamedTuple):
    """What one call used: tokens of its prompt, and of its answer."""

    prompt: int
    completion: int


class Tail:
    """The last bytes of an answer."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        """Keep the next piece, and of all before it what is still near the end."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > 2 * KEPT_BYTES:
            kept = b"".join(self._pieces)[-KEPT_BYTES:]
            self._pieces, self._size = [kept], len(kept)

    def tokens(self, *, bytes_in: int, bytes_out: int) -> Tokens | None:
        """Return what the answer claims, capped by what was seen; None if it claims nothing."""
        claimed = claimed_tokens(b"".join(self._pieces))
        if claimed is None:
            return None
        return Tokens(min(claimed.prompt, bytes_in), min(claimed.completion, bytes_out))


def tail_for(cord: Cord) -> Tail | None:
    """Return a tail for a call of an OpenAI-style cord, None for others."""
    return Tail() if cord.public_api_path in PATHS else None


def claimed_tokens(tail: bytes) -> Tokens | None:
    """Return the last usage object in the end of an answer, whole JSON or server-sent events."""
    end = len(tail)
    for _ in range(MAX_TRIES):
        at = tail.rfind(_NAME, 0, end)
        if at < 0:
            return None
        tokens = _tokens(_object_after(tail, at + len(_NAME)))
        if tokens is not None:
            return tokens
        end = at
    return None


def _object_after(text: bytes, at: int) -> bytes:
    """Return the JSON object that is the value behind a name, or nothing."""
    rest = text[at : at + MAX_OBJECT_BYTES].lstrip()
    if not rest.startswith(b":"):
        return b""
    rest = rest[1:].lstrip()
    if not rest.startswith(b"{"):
        return b""
    depth, quoted, escaped = 0, False, False
    for index, char in enumerate(rest):
        if escaped:
            escaped = False
        elif char == 0x5C:  # a backslash
            escaped = quoted
        elif char == 0x22:  # a quote
            quoted = not quoted
        elif not quoted and char in b"{}":
            depth += 1 if char == 0x7B else -1
            if not depth:
                return rest[: index + 1]
    return b""


def _tokens(text: bytes) -> Tokens | None:
    try:
        usage = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    prompt = _count(usage.get("prompt_tokens"))
    completion = _count(usage.get("completion_tokens", 0))
    return None if prompt is None or completion is None else Tokens(prompt, completion)


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return min(value, _MAX_TOKENS)
