"""From a call's head to an ASGI scope, and from an ASGI response start to a ResponseHead."""

import uuid

import pytest

from chutes_core.base.errors import ProtocolError
from chutes_core.runner.asgi import MAX_HEADERS_BYTES, response_head, scope_of
from chutes_core.wire.call import CallHead


def head(**changes):
    values = {"invocation_id": str(uuid.UUID(int=1)), "method": "post", "path": "/a%20b"}
    return CallHead.model_validate(values | changes)


def test_the_scope_has_decoded_path_raw_path_and_query():
    """The path travels percent-encoded and reaches the chute decoded."""
    scope = scope_of(head(query="x=%31&y"))
    assert (scope["path"], scope["raw_path"]) == ("/a b", b"/a%20b")
    assert (scope["method"], scope["query_string"]) == ("POST", b"x=%31&y")


def test_hop_headers_stay_outside_and_the_invocation_is_ours():
    """Hop-by-hop headers and a forged invocation id do not reach the chute."""
    given = (("Connection", "close"), ("X-A", "1"), ("X-Chutes-InvocationID", "forged"))
    headers = scope_of(head(headers=given))["headers"]
    assert headers == [(b"x-a", b"1"), (b"x-chutes-invocationid", str(uuid.UUID(int=1)).encode())]


def test_a_response_keeps_end_to_end_headers_in_lower_case():
    """Transfer-Encoding belongs to one hop; the others go on, repeated ones too."""
    made = response_head(
        201, [(b"Set-Cookie", b"a"), (b"set-cookie", b"b"), (b"Transfer-Encoding", b"chunked")]
    )
    assert made.status == 201
    assert made.headers == (("set-cookie", "a"), ("set-cookie", "b"))


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (99, []),
        (200, [(b"x", b"1")] * 101),
        (200, [(b"x", b"1" * MAX_HEADERS_BYTES)]),
    ],
)
def test_a_response_over_a_limit_is_refused(status, headers):
    """Limits of the wire hold for what user code makes."""
    with pytest.raises(ProtocolError) as caught:
        response_head(status, headers)
    assert caught.value.code == "bad_response"
