"""API keys: only the owner itself or an admin key reads and deletes them.

Invariant: a key with bounds makes no key, so no bound is left behind by making another.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.forms import KeyForm
from chutes_core.validator.api.pages import AskedPage
from chutes_core.validator.api.services import Services
from chutes_core.validator.api.views import key_view

MAX_BODY_BYTES = 64 * 1024


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /api_keys."""
    router = APIRouter(prefix="/api_keys", tags=["keys"], route_class=bounded_route(MAX_BODY_BYTES))
    owner = Annotated[Principal, Depends(guards.user("api_keys"))]
    accounts = services.accounts

    @router.post("/")
    def create_key(caller: owner, form: KeyForm) -> dict[str, Any]:
        caller.require_key_maker()
        new = accounts.create_key(
            caller.account,
            name=form.name,
            admin=form.admin,
            scopes=form.to_scopes(),
            bounds=form.to_bounds(),
        )
        return key_view(new.key) | {"secret_key": new.text}

    @router.get("/")
    def list_keys(caller: owner, asked: AskedPage, name: str | None = None) -> dict[str, Any]:
        caller.require_admin()
        found = [key for key in accounts.keys(caller.account) if name is None or name in key.name]
        return asked.of(found, key_view)

    @router.get("/{key_id}")
    def read_key(caller: owner, key_id: str) -> dict[str, Any]:
        caller.require_admin()
        return key_view(accounts.key(caller.account, key_id))

    @router.delete("/{key_id}")
    def delete_key(caller: owner, key_id: str) -> dict[str, Any]:
        caller.require_admin()
        accounts.delete_key(caller.account, key_id)
        return {"api_key_id": key_id, "deleted": True}

    return router
