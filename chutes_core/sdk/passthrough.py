"""Passthrough cords: the request goes on to a server that the chute itself started.

Invariant: only the loopback address is dialled, at the cord's own port and path; hop-by-hop
headers stay behind, and the answer's bytes pass through as they come.
"""

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from chutes_core.sdk.cord import Cord

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_TIMEOUT_S = 1800.0
_CONNECT_TIMEOUT_S = 10.0


async def forward(
    request: Request, body: bytes, cord: Cord, extra_headers: dict[str, str]
) -> Response:
    """Send the request to the cord's local port and return its answer as a stream."""
    import httpx  # only chutes with passthrough cords pay for it

    headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
    client = httpx.AsyncClient(
        timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S), trust_env=False
    )
    outgoing = client.build_request(
        request.method,
        f"http://127.0.0.1:{cord.passthrough_port}{cord.passthrough_path}",
        params=list(request.query_params.multi_items()),
        content=body,
        headers={**headers, **extra_headers},
    )
    try:
        answer = await client.send(outgoing, stream=True)
    except httpx.TransportError as error:
        await client.aclose()
        return JSONResponse(
            {
                "detail": f"the chute's own server did not answer: {type(error).__name__}",
                "code": "passthrough_unreachable",
                "hint": f"does it listen on port {cord.passthrough_port} after start-up?",
            },
            status_code=502,
        )

    async def chunks() -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                yield chunk
        finally:
            await answer.aclose()
            await client.aclose()

    kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
    return StreamingResponse(chunks(), status_code=answer.status_code, headers=kept)
