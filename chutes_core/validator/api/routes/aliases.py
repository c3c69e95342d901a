"""Aliases: set, listed, read and deleted by their owner or its admin key."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.forms import AliasForm
from chutes_core.validator.api.pages import AskedPage
from chutes_core.validator.api.services import Services
from chutes_core.validator.api.views import when
from chutes_core.validator.catalog.aliases import Aliases
from chutes_core.validator.catalog.chutes import visible
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.aliases import Alias

MAX_BODY_BYTES = 16 * 1024


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /aliases."""
    router = APIRouter(
        prefix="/aliases", tags=["aliases"], route_class=bounded_route(MAX_BODY_BYTES)
    )
    owner = Annotated[Principal, Depends(guards.user("aliases"))]
    aliases = Aliases(services.store, services.clock, services.chutes)

    def show(alias: Alias, viewer: Account) -> dict[str, Any]:
        return {
            "name": alias.name,
            "model": alias.model,
            "slug": alias.slug,
            "chutes": [_target(services, chute_id, viewer) for chute_id in alias.chute_ids],
            "created_at": when(alias.created_at_s),
            "updated_at": when(alias.updated_at_s),
        }

    @router.put("/{name}")
    def set_alias(caller: owner, name: str, form: AliasForm) -> dict[str, Any]:
        caller.require_admin()
        return show(aliases.set(caller.account, name, form.chutes), caller.account)

    @router.get("/")
    def list_aliases(caller: owner, asked: AskedPage) -> dict[str, Any]:
        caller.require_admin()
        found = aliases.list(caller.account)
        return asked.of(found, lambda alias: show(alias, caller.account))

    @router.get("/{name}")
    def read_alias(caller: owner, name: str) -> dict[str, Any]:
        caller.require_admin()
        return show(aliases.get(caller.account, name), caller.account)

    @router.delete("/{name}")
    def delete_alias(caller: owner, name: str) -> dict[str, Any]:
        caller.require_admin()
        aliases.delete(caller.account, name)
        return {"name": name, "deleted": True}

    return router


def _target(services: Services, chute_id: str, viewer: Account) -> dict[str, Any]:
    """Show a chute of an alias; of one that is gone, or no longer shared, its id alone."""
    chute = services.store.chutes.get(chute_id)
    if chute is None or not visible(chute, viewer):
        return {"chute_id": chute_id, "name": None, "slug": None}
    name = f"{chute.username}/{chute.name}"
    return {"chute_id": chute_id, "name": name, "slug": chute.slug}
