"""Whether this validator is well: for its operator's monitor; anybody may read it."""

from typing import Any

from fastapi import APIRouter, Response

from chutes_core.validator.health import Health


def build_router(health: Health) -> APIRouter:
    """Return /health and /health/metrics."""
    router = APIRouter(tags=["public"])

    @router.get("/health")
    async def now() -> dict[str, Any]:
        return health.view()

    @router.get("/health/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(health.metrics(), media_type="text/plain; version=0.0.4")

    return router
