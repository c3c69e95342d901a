"""Guards as FastAPI dependencies: who calls, proven by a hotkey's signature or by an API key.

Invariant: a route that names a guard runs only for a proven caller; a signature is accepted once
(the store keeps its nonce), and nothing here touches SQLite on the event loop.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Request, Security

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Unauthenticated
from chutes_core.base.failures import FailedTries, network_of
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.accounts.service import Accounts
from chutes_core.validator.api.openapi import API_KEY, HOTKEY
from chutes_core.validator.domain.keytext import presented_key
from chutes_core.wire.signing import Caller, NonceStore, verify_user

# These say in the API's document how a caller is proven; the proof itself is read below.
Shown = Annotated[object, Security(API_KEY)]
Signature = Annotated[object, Security(HOTKEY)]
USER_ID = "x-chutes-userid"
_SIGNATURE = "x-chutes-signature"


class Guards:
    """Makes the dependencies of routes."""

    def __init__(
        self, accounts: Accounts, nonces: NonceStore, clock: Clock, failures: FailedTries
    ) -> None:
        self._accounts = accounts
        self._nonces = nonces
        self._clock = clock
        self._failures = failures

    def user(self, purpose: str) -> Callable[[Request], Awaitable[Principal]]:
        """Return a dependency that gives the caller; ``purpose`` is what body-less calls sign."""

        async def dependency(
            request: Request, _key: Shown = None, _signature: Signature = None
        ) -> Principal:
            body = await request.body()
            with self._counted(request):
                return await run_sync(partial(self._identify, request, body, purpose))

        return dependency

    async def by_key(self, request: Request, _key: Shown = None) -> Principal:
        """Return the caller by an API key alone: nothing of the body is read for it."""
        with self._counted(request):
            return await run_sync(self._by_key, request.headers)

    async def signer(self, request: Request, _signature: Signature = None) -> str:
        """Return the hotkey that signed the request, whether it has an account or not."""
        body = await request.body()
        with self._counted(request):
            caller = await run_sync(partial(self._verify, request, body, "register"))
        return caller.hotkey_ss58

    async def holder(self, request: Request) -> str:
        """Return whom to hold to account for a body that has not been read yet.

        A key proves its account; a signature covers the body and proves nothing before it, so its
        address stands in for whoever claims a hotkey.

        Raises:
            Unauthenticated: neither is there, or the key is bad.
        """
        with self._counted(request):
            if _SIGNATURE in request.headers:
                return network_of(request.client.host if request.client else None)
            return (await run_sync(self._by_key, request.headers)).account.user_id

    @contextmanager
    def _counted(self, request: Request) -> Iterator[None]:
        """Check the address before its proof, and count the proof if it fails."""
        address = request.client.host if request.client else None
        self._failures.check(address)
        try:
            yield
        except Unauthenticated:
            self._failures.count(address)
            raise

    def _identify(self, request: Request, body: bytes, purpose: str) -> Principal:
        headers = request.headers
        if _SIGNATURE in headers:
            caller = self._verify(request, body, purpose)
            return self._accounts.signed(caller.hotkey_ss58, headers.get(USER_ID))
        return self._by_key(headers)

    def _by_key(self, headers: Mapping[str, str]) -> Principal:
        text = presented_key(headers.get("authorization"), headers.get("x-api-key"))
        if text is None:
            raise Unauthenticated(
                "no_credentials",
                "the request carries no signature and no API key",
                hint="Authorization: Bearer cpk_…",
            )
        return self._accounts.with_key(text)

    def _verify(self, request: Request, body: bytes, purpose: str) -> Caller:
        return verify_user(
            request.headers,
            body or None,
            purpose=purpose,
            target=f"{request.method} {request.url.path}?{request.url.query}",
            nonces=self._nonces,
            now_s=self._clock.now_s(),
        )
