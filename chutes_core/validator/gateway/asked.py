"""What was asked: the parts of an ASGI scope that front looks at, and the CALL made of them.

Invariant: pure; what an instance may not see is left out by headers.call_head alone.
"""

from dataclasses import dataclass

from chutes_core.validator.gateway.admission import Admitted
from chutes_core.validator.gateway.asgi import Scope
from chutes_core.validator.gateway.body import check_arguments
from chutes_core.validator.gateway.headers import call_head
from chutes_core.validator.gateway.target import Target
from chutes_core.validator.gateway.upgrades import Upgrade
from chutes_core.wire.call import CALL_BY_ARGUMENTS, HEADER_CALL, WEBSOCKET, CallHead


@dataclass(frozen=True)
class Request:
    """The parts of an ASGI scope that front looks at; header names in lower case.

    ``upgrade`` is set where it is a websocket's handshake.
    """

    method: str
    path: str
    headers: dict[str, str]
    scope: Scope
    upgrade: Upgrade | None = None

    @classmethod
    def of(cls, scope: Scope) -> "Request":
        """Read a scope; of a header that stands there twice the last one counts."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        return cls(scope.get("method", "GET").upper(), scope["path"], headers, scope)


def head_of(
    request: Request, target: Target, admitted: Admitted, invocation_id: str, body: bytes
) -> CallHead:
    """Return the CALL of a request with this body.

    Raises:
        Invalid: too many headers, too long a query, or arguments that are none.
    """
    if target.form == "cord":
        check_arguments(body, request.headers.get("content-type"))
    head = call_head(
        invocation_id=invocation_id,
        method=request.method,
        path=admitted.path,
        query=request.scope.get("query_string", b""),
        headers=request.scope["headers"],
        length=len(body),
    )
    if request.upgrade is not None:
        headers = tuple(pair for pair in head.headers if pair[0] != "content-length")
        return head.model_copy(update={"headers": headers, "upgrade": WEBSOCKET})
    if target.form == "cord":
        form = (HEADER_CALL, CALL_BY_ARGUMENTS)
        return head.model_copy(update={"headers": (*head.headers, form)})
    return head
