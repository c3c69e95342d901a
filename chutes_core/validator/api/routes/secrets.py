"""Secrets of chutes: made, listed and deleted by their owner or its admin key; never shown."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.accounts.secrets import MINER_NOTE
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.forms import SecretForm
from chutes_core.validator.api.pages import AskedPage
from chutes_core.validator.api.services import Services
from chutes_core.validator.api.views import when
from chutes_core.validator.domain.extras import Secret

MAX_BODY_BYTES = 128 * 1024  # a value, escaped in JSON


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /secrets."""
    router = APIRouter(
        prefix="/secrets", tags=["secrets"], route_class=bounded_route(MAX_BODY_BYTES)
    )
    owner = Annotated[Principal, Depends(guards.user("secrets"))]
    secrets = services.secrets

    @router.post("/")
    def create_secret(caller: owner, form: SecretForm) -> dict[str, Any]:
        caller.require_admin()
        value = form.value.get_secret_value()
        made = secrets.create(caller.account, purpose=form.purpose, key=form.key, value=value)
        return _view(made) | {"note": MINER_NOTE}

    @router.get("/")
    def list_secrets(caller: owner, asked: AskedPage) -> dict[str, Any]:
        caller.require_admin()
        return asked.of(secrets.list(caller.account), _view)

    @router.get("/{secret_id}")
    def read_secret(caller: owner, secret_id: str) -> dict[str, Any]:
        caller.require_admin()
        return _view(secrets.get(caller.account, secret_id))

    @router.delete("/{secret_id}")
    def delete_secret(caller: owner, secret_id: str) -> dict[str, Any]:
        caller.require_admin()
        secrets.delete(caller.account, secret_id)
        return {"secret_id": secret_id, "deleted": True}

    return router


def _view(secret: Secret) -> dict[str, Any]:
    return {
        "secret_id": secret.secret_id,
        "purpose": secret.purpose,
        "chute_id": secret.chute_id,
        "key": secret.key,
        "created_at": when(secret.created_at_s),
    }
