"""What anybody may read: a sign of life and the price list."""

from typing import Any

from fastapi import APIRouter

from chutes_core.base.gpus import GPU_CLASSES
from chutes_core.base.units import USD_MICROS_PER_USD
from chutes_core.validator.api.services import Services
from chutes_core.validator.api.views import gpu_view


def build_router(services: Services) -> APIRouter:
    """Return /ping and /pricing."""
    router = APIRouter(tags=["public"])

    @router.get("/ping")
    async def ping() -> dict[str, bool]:
        return {"ok": True}

    @router.get("/pricing")
    async def pricing() -> dict[str, Any]:
        gpus = sorted(GPU_CLASSES.values(), key=lambda gpu: gpu.usd_micros_per_hour)
        return {
            "tao_usd": services.rates.tao_usd_micros / USD_MICROS_PER_USD,
            "gpus": [gpu_view(gpu) for gpu in gpus],
        }

    return router
