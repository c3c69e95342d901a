"""Chutes: deploy, list, read, delete, share; warming up has a file of its own."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from chutes_core.base import ids
from chutes_core.base.errors import Forbidden
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.forms import ChuteForm, ShareForm
from chutes_core.validator.api.pages import AskedPage
from chutes_core.validator.api.routes.logos import check_logo
from chutes_core.validator.api.routes.warmup import phase_of
from chutes_core.validator.api.services import Services
from chutes_core.validator.api.views import (
    chute_view,
    cord_ref_id,
    cords_view,
    jobs_view,
    version_view,
)
from chutes_core.validator.domain.chutes import Chute

MAX_BODY_BYTES = 4 * 1024 * 1024  # half a MiB of code, escaped in JSON, and the cords' schemas


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /chutes that answer at once."""
    router = APIRouter(prefix="/chutes", tags=["chutes"], route_class=bounded_route(MAX_BODY_BYTES))
    user = Annotated[Principal, Depends(guards.user("chutes"))]
    chutes = services.chutes

    def show(chute: Chute) -> dict[str, Any]:
        return chute_view(chute, services.store, services.rates)

    def show_whole(chute: Chute) -> dict[str, Any]:
        return show(chute) | {"cords": cords_view(chute), "jobs": jobs_view(chute)}

    @router.post("/")
    def deploy_chute(
        caller: user, form: ChuteForm, *, accept_fee: Annotated[bool, Query()] = False
    ) -> dict[str, Any]:
        chute_id = ids.chute_id(caller.account.username, form.name)
        caller.require("chutes", "write", chute_id)
        check_logo(services, caller, form.logo_id)
        draft = form.to_draft()
        done = chutes.deploy(caller.account, draft, accept_fee=accept_fee, key=caller.key)
        if form.logo_id is not None:
            services.store.logos.show_on(done.chute.chute_id, form.logo_id)
        return show_whole(done.chute) | {"fee_rao": done.fee_rao, "new": done.new}

    @router.get("/")
    def list_chutes(
        caller: user,
        asked: AskedPage,
        name: str | None = None,
        *,
        include_public: Annotated[bool, Query()] = False,
    ) -> dict[str, Any]:
        found = [
            chute
            for chute in chutes.list(caller.account, include_public=include_public)
            if (name is None or name.lower() in chute.name.lower())
            and caller.may("chutes", "read", chute.chute_id)
        ]
        first = asked.page * asked.limit
        shown = found[first : first + asked.limit]
        return asked.of(found, show) | {
            "cord_refs": {cord_ref_id(chute): cords_view(chute) for chute in shown}
        }

    @router.post("/share")
    def share_chute(caller: user, form: ShareForm) -> dict[str, str]:
        chute = chutes.get(caller.account, form.chute_id_or_name)
        caller.require("chutes", "write", chute.chute_id)
        chutes.share(caller.account, chute.chute_id, form.user_id_or_name)
        return {"status": f"{chute.name} is shared with {form.user_id_or_name}"}

    @router.post("/unshare")
    def unshare_chute(caller: user, form: ShareForm) -> dict[str, str]:
        chute = chutes.get(caller.account, form.chute_id_or_name)
        caller.require("chutes", "write", chute.chute_id)
        chutes.unshare(caller.account, chute.chute_id, form.user_id_or_name)
        return {"status": f"{chute.name} is no longer shared with {form.user_id_or_name}"}

    @router.get("/versions/{reference:path}")
    def list_versions(caller: user, reference: str) -> dict[str, Any]:
        chute = chutes.get(caller.account, reference)
        caller.require("chutes", "read", chute.chute_id)
        if chute.user_id != caller.account.user_id:
            raise Forbidden("not_owner", "the code of a chute is shown to its owner alone")
        versions = services.store.chutes.versions(chute.chute_id)
        return {
            "chute_id": chute.chute_id,
            "public": chute.public,
            "items": [version_view(one, chute) for one in versions],
        }

    @router.get("/{reference:path}")
    def read_chute(caller: user, reference: str) -> dict[str, Any]:
        chute = chutes.get(caller.account, reference)
        caller.require("chutes", "read", chute.chute_id)
        phase, reason = phase_of(services, chute.chute_id)
        return show_whole(chute) | {"phase": phase, "reason": reason}

    @router.delete("/{reference:path}")
    def delete_chute(caller: user, reference: str) -> dict[str, Any]:
        chute = chutes.get(caller.account, reference)
        caller.require("chutes", "delete", chute.chute_id)
        chutes.delete(caller.account, chute.chute_id)
        return {"chute_id": chute.chute_id, "deleted": True}

    return router
