"""What the fast path makes of a repeated request once: target, key, admission, head of the CALL.

Path: fast -> plan. Invariant: everything kept here is a pure function of the request's shape and of
one Snapshot, except for a key's end in time, which is looked at on each call; so a plan decides
what the reference would decide. It outlives snapshots and keeps none alive.
"""

import weakref
from typing import Final

import orjson

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.gateway.admission import Admitted, admit, authenticate
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.headers import call_head
from chutes_core.validator.gateway.plane.request import Shape
from chutes_core.validator.gateway.target import Target, target_of
from chutes_core.wire.call import CALL_BY_ARGUMENTS, HEADER_CALL

_ID: Final = "00000000-0000-4000-8000-000000000000"
_LENGTH: Final = "4294967295"
_FORM: Final = ("slug", "model", "cord")


class Plan:
    """One shape's.

    ``target`` is None where it is no invocation; ``served``: whether the fast path may take it.
    """

    def __init__(self, shape: Shape, domain: str | None) -> None:
        self.target = target_of(shape.method, shape.path, shape.host, domain)
        self.form = None if self.target is None else self.target.form
        in_form = self.form in _FORM
        self.served = in_form and shape.version == "1.1" and not shape.upgrade
        self.content_type = _named(shape, b"content-type")
        self._shape = shape
        self._headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in shape.headers
        }
        self._snapshot: weakref.ref[Snapshot] | None = None
        self._key: ApiKey | None = None
        self._model: str | None = None
        self._admitted: Admitted | None = None
        self._head: tuple[bytes, bytes, bytes] | None = None
        self._head_path = ""
        self._paid_of: Admitted | None = None
        self._paid_s = 0.0

    def admitted(self, snapshot: Snapshot, clock: Clock, model: str | None) -> Admitted:
        """Return the admitted call.

        Raises:
            ChutesError: as `authenticate` and `admit` do.
        """
        key, known = self._key, self._admitted
        seen = None if self._snapshot is None else self._snapshot()
        if snapshot is not seen or key is None or known is None or model != self._model:
            assert self.target is not None
            key = authenticate(snapshot, self._headers, now_s=clock.now_s())
            known = admit(snapshot, key, self.target, method=self._shape.method, model=model)
            self._snapshot = weakref.ref(snapshot)
            self._key, self._model, self._admitted = key, model, known
        elif key.expires_at_s is not None:
            authenticate(snapshot, self._headers, now_s=clock.now_s())
        return known

    def paid_s(self, call: Call, max_call_s: float) -> float:
        """Return how long a call is paid for; worked out once while calls are admitted alike."""
        if self._paid_of is not call.admitted:
            self._paid_of, self._paid_s = call.admitted, call.paid_s(max_call_s)
        return self._paid_s

    def head(self, admitted: Admitted, invocation_id: str, length: int) -> bytes:
        """Return the payload of the CALL frame.

        Raises:
            Invalid: ``too_many_headers`` or ``uri_too_long``.
        """
        if self._head is None or self._head_path != admitted.path:
            self._head = _template(self._shape, self.target, admitted.path)
            self._head_path = admitted.path
        before, between, after = self._head
        return b"".join((before, invocation_id.encode(), between, b"%d" % length, after))


def _template(shape: Shape, target: Target | None, path: str) -> tuple[bytes, bytes, bytes]:
    """Return the CALL's JSON, cut at the invocation's id and at the body's length."""
    head = call_head(
        invocation_id=_ID,
        method=shape.method,
        path=path,
        query=shape.query,
        headers=shape.headers,
        length=int(_LENGTH),
    )
    headers = head.headers
    if target is not None and target.form == "cord":
        headers = (*headers, (HEADER_CALL, CALL_BY_ARGUMENTS))
    text = orjson.dumps({**head.model_dump(), "headers": headers})
    first = b'{"invocation_id":"' + _ID.encode() + b'"'
    mark = f'["content-length","{_LENGTH}"]'.encode()
    assert text.startswith(first)
    at = text.rindex(mark) + len(mark) - len(_LENGTH) - 2
    begin = len(first) - len(_ID) - 1
    return text[:begin], text[begin + len(_ID) : at], text[at + len(_LENGTH) :]


def _named(shape: Shape, wanted: bytes) -> str | None:
    found = None
    for name, value in shape.headers:
        if name == wanted:
            found = value.decode("latin-1")
    return found
