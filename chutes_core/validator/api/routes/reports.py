"""Calls that were made: their receipts, and what a caller says was wrong with one of its own."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from loguru import logger

from chutes_core.base.errors import Conflict, NotFound
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.forms import ReportForm
from chutes_core.validator.api.services import Services
from chutes_core.validator.billing.receipts import Receipts
from chutes_core.validator.domain.extras import Report
from chutes_core.wire.receipt import Receipt

MAX_BODY_BYTES = 16 * 1024


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /invocations."""
    router = APIRouter(
        prefix="/invocations", tags=["invocations"], route_class=bounded_route(MAX_BODY_BYTES)
    )
    user = Annotated[Principal, Depends(guards.user("invocations"))]
    store = services.store
    receipts = Receipts(store)

    @router.get("/{invocation_id}/receipt")
    def receipt(caller: user, invocation_id: str) -> Receipt:
        call = store.invocations.get(invocation_id)
        chute = None if call is None else store.chutes.get_any(call.chute_id)
        mine = {None if call is None else call.user_id, None if chute is None else chute.user_id}
        if call is None or caller.account.user_id not in mine:
            raise NotFound(
                "no_such_invocation",
                "you made no call of this id, or it is not settled yet",
                hint="calls are settled within seconds; ids stand in X-Chutes-InvocationID",
            )
        if caller.account.user_id == call.user_id:
            caller.require("chutes", "invoke", call.chute_id)
        else:
            caller.require("chutes", "read", call.chute_id)
        return receipts.of(call)

    @router.post("/{invocation_id}/report")
    def report_invocation(caller: user, invocation_id: str, form: ReportForm) -> dict[str, Any]:
        call = store.invocations.get(invocation_id)
        if call is None or call.user_id != caller.account.user_id:
            raise NotFound(
                "no_such_invocation",
                "you made no call of this id",
                hint="see the header X-Chutes-InvocationID; a new call takes a few seconds",
            )
        caller.require("chutes", "invoke", call.chute_id)
        report = Report(
            invocation_id=invocation_id,
            user_id=call.user_id,
            chute_id=call.chute_id,
            launch_id=call.launch_id,
            reason=form.reason,
            at_s=services.clock.now_s(),
        )
        if not store.reports.insert(report):
            raise Conflict("reported_before", "this invocation was reported before")
        logger.bind(chute=call.chute_id, launch=call.launch_id).info("Invocation reported")
        return {"status": f"invocation {invocation_id} is reported", "invocation_id": invocation_id}

    return router
