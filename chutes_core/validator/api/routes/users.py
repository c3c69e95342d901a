"""Users: registration by a signed request, oneself, and one's statement."""

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request

from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards, Signature
from chutes_core.validator.api.forms import RegisterForm
from chutes_core.validator.api.limits import SlowBuckets
from chutes_core.validator.api.pages import AskedPage
from chutes_core.validator.api.services import Services
from chutes_core.validator.api.views import account_view, line_view, me_view

MAX_BODY_BYTES = 16 * 1024
PER_ADDRESS = {"burst": 20, "refill_s": 30}
PER_HOTKEY = {"burst": 5, "refill_s": 60}


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /users."""
    router = APIRouter(prefix="/users", tags=["users"], route_class=bounded_route(MAX_BODY_BYTES))
    addresses = SlowBuckets(services.clock, **PER_ADDRESS)
    hotkeys = SlowBuckets(services.clock, **PER_HOTKEY)
    me = Annotated[Principal, Depends(guards.user("me"))]

    async def admitted(request: Request, _signature: Signature = None) -> str:
        """Count the caller's address before its signature is checked, and its hotkey after."""
        addresses.take(request.client.host if request.client else "unknown")
        hotkey_ss58 = await guards.signer(request)
        hotkeys.take(hotkey_ss58)
        return hotkey_ss58

    @router.post("/register")
    async def register(
        hotkey_ss58: Annotated[str, Depends(admitted)], form: RegisterForm
    ) -> dict[str, Any]:
        done = await run_sync(
            lambda: services.accounts.register(
                hotkey_ss58=hotkey_ss58, username=form.username, coldkey_ss58=form.coldkey
            )
        )
        return account_view(done.account) | {"fingerprint": done.fingerprint}

    @router.get("/me")
    def read_me(caller: me) -> dict[str, Any]:
        caller.require_admin()
        return me_view(caller.account, services.ledger.balance(caller.account.user_id))

    @router.get("/me/statement")
    def read_statement(caller: me, asked: AskedPage) -> dict[str, Any]:
        caller.require_admin()
        user_id = caller.account.user_id
        statement = services.ledger.statement(user_id, page=asked.page, limit=asked.limit)
        return {
            "total": statement.total,
            "page": asked.page,
            "limit": asked.limit,
            "balance_rao": services.ledger.balance(user_id),
            "items": [line_view(line) for line in statement.lines],
        }

    return router
