"""Where a request's body names its model, and the same body with another name there.

Path: front -> aliases -> here. Invariant: pure; of a body that `model_of` has read, every byte
outside of the model's value stays as its caller sent it, so that no number is rounded and no member
is read in another way than before. Time grows with the body's length alone: what takes Python's own
steps (one for each member named model) is bounded.
"""

import re

import orjson

from chutes_core.base.errors import Invalid

MAX_MEMBERS = 1000
_SPACE = rb"[ \t\r\n]*"
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_MEMBER = re.compile(  # a letter may be written by its number
    rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"'
    + _SPACE
    + rb":"
    + _SPACE
)
_A_TEXT = re.compile(_TEXT)

Span = tuple[int, int]


def model_spans(body: bytes) -> list[Span]:
    """Return where the values of the document's own ``model`` stand; nested ones are others'.

    Args:
        body: a JSON object whose last ``model`` is a text (`body.model_of` has returned it).

    Raises:
        Invalid: ``too_many_models``, or ``two_models``: another one before it is no text.
    """
    found = _members(body)
    if len(found) > 1:
        found = _outermost(body, found)
    spans: list[Span] = []
    for _, value in found:
        text = _A_TEXT.match(body, value)
        if text is None:
            raise Invalid(
                "two_models",
                "the body has two members named model, and one is no text",
                hint="name one model, as a text",
            )
        spans.append(text.span())
    return spans


def renamed(body: bytes, spans: list[Span], model: str) -> tuple[bytes, list[Span]]:
    """Return a body with another model's name in these places, and where they are now."""
    name = orjson.dumps(model)
    parts: list[bytes] = []
    moved: list[Span] = []
    at, size = 0, 0
    for begin, end in spans:
        size += begin - at
        parts += (body[at:begin], name)
        moved.append((size, size + len(name)))
        at, size = end, size + len(name)
    parts.append(body[at:])
    return b"".join(parts), moved


def _members(body: bytes) -> list[Span]:
    """Return where members named model begin, at any depth, and where their values do.

    A quote behind a backslash stands inside a text. Any other one that a name follows begins one,
    for behind the end of a text no name can stand.
    """
    found: list[Span] = []
    for member in _MEMBER.finditer(body):
        if body[member.start() - 1] == 0x5C:
            continue
        found.append(member.span())
        if len(found) > MAX_MEMBERS:
            raise Invalid(
                "too_many_models",
                f"more than {MAX_MEMBERS} members of the body are named model",
                hint="name a chute as the model, not an alias",
            )
    return found


def _outermost(body: bytes, members: list[Span]) -> list[Span]:
    """Return those that belong to the document itself: one bracket is open before them."""
    outermost: list[Span] = []
    depth, at = 0, 0
    for begin, value in members:
        between = _A_TEXT.sub(b"", body[at:begin])
        depth += between.count(b"{") + between.count(b"[")
        depth -= between.count(b"}") + between.count(b"]")
        at = begin
        if depth == 1:
            outermost.append((begin, value))
    return outermost
