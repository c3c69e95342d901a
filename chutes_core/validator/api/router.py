"""All user-facing routes in one router, in the order in which their paths must match."""

from fastapi import APIRouter

from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.routes import (
    aliases,
    chutes,
    images,
    instances,
    jobs,
    keys,
    logos,
    ports,
    public,
    reports,
    secrets,
    users,
    warmup,
)
from chutes_core.validator.api.services import Services


def build_router(services: Services) -> APIRouter:
    """Return the user-facing API; validator/app.py includes it beside the neurons' routes."""
    guards = Guards(services.accounts, services.store.nonces, services.clock, services.failures)
    router = APIRouter()
    router.include_router(public.build_router(services))
    for part in (
        users,
        keys,
        secrets,
        logos,
        images,
        warmup,
        chutes,
        aliases,
        instances,
        jobs,
        ports,
        reports,
    ):
        router.include_router(part.build_router(services, guards))
    return router
