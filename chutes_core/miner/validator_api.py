"""What a miner asks validators: the control calls of docs/architecture/03-protocols.md.

`ValidatorApi` is the seam that the deployer and the loops see; `HttpValidatorApi` is the only
adapter. Invariant: every answer that leads to a deed was signed by that validator (the two
unsigned GETs carry signatures inside).
"""

from types import TracebackType
from typing import Protocol, TypeVar

from bittensor_core import Keypair
from pydantic import BaseModel

from chutes_core.base.errors import ProtocolError
from chutes_core.miner.discovery import Validator
from chutes_core.wire.control import (
    DialBack,
    DialBackRequest,
    ImageRef,
    LaunchEvent,
    LaunchGrant,
    LaunchList,
    LaunchRequest,
    LaunchStatus,
    LeaseList,
    Wake,
    WantedList,
)
from chutes_core.wire.discovery import WELL_KNOWN_PATH, WellKnown
from chutes_core.wire.peers import SignedClient

MAX_BUNDLE_BYTES = 256 * 1024 * 1024
WAKE_S = 25.0
_BUNDLE_TIMEOUT_S = 300.0
_WAKE_TIMEOUT_S = WAKE_S + 15.0
_ModelT = TypeVar("_ModelT", bound=BaseModel)


class ValidatorApi(Protocol):
    """Calls to one validator; each raises ChutesError with the validator's own code."""

    async def wanted(self, validator: Validator) -> WantedList:
        """Return what the validator wants now."""
        ...

    async def wake(self, validator: Validator, after: int) -> int:
        """Wait until more is wanted than when the number was ``after``; return the number."""
        ...

    async def launches(self, validator: Validator) -> LaunchList:
        """Return this miner's launches as the validator sees them."""
        ...

    async def request_launch(self, validator: Validator, request: LaunchRequest) -> LaunchGrant:
        """Ask for a launch."""
        ...

    async def report(
        self, validator: Validator, launch_id: str, event: LaunchEvent
    ) -> LaunchStatus:
        """Report what happened to a launch."""
        ...

    async def bundle(self, validator: Validator, image: ImageRef) -> bytes:
        """Fetch an image's bundle; its size is bounded, its digest is checked by the caller."""
        ...

    async def leases(self, validator: Validator) -> LeaseList:
        """Return the leases of this miner that the validator knows."""
        ...


class HttpValidatorApi:
    """The calls over HTTP; use as an async context manager."""

    def __init__(self, keypair: Keypair) -> None:
        self._own = keypair.ss58_address
        self._signed = SignedClient(keypair)
        self._bundles = SignedClient(keypair, timeout_s=_BUNDLE_TIMEOUT_S)
        self._wakes = SignedClient(keypair, timeout_s=_WAKE_TIMEOUT_S)

    async def __aenter__(self) -> "HttpValidatorApi":
        await self._signed.__aenter__()
        await self._bundles.__aenter__()
        await self._wakes.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._wakes.__aexit__(kind, error, trace)
        await self._bundles.__aexit__(kind, error, trace)
        await self._signed.__aexit__(kind, error, trace)

    async def wanted(self, validator: Validator) -> WantedList:
        """GET /miner/wanted."""
        return await self._call(validator, "GET", "/miner/wanted", WantedList)

    async def wake(self, validator: Validator, after: int) -> int:
        """GET /miner/wake."""
        path = f"/miner/wake?after={after}&wait_s={WAKE_S}"
        return (
            await self._wakes.call(
                "GET", validator.url, path, Wake, peer_hotkey_ss58=validator.hotkey
            )
        ).number

    async def launches(self, validator: Validator) -> LaunchList:
        """GET /miner/launches."""
        return await self._call(validator, "GET", "/miner/launches", LaunchList)

    async def request_launch(self, validator: Validator, request: LaunchRequest) -> LaunchGrant:
        """POST /miner/launches."""
        return await self._call(validator, "POST", "/miner/launches", LaunchGrant, request)

    async def report(
        self, validator: Validator, launch_id: str, event: LaunchEvent
    ) -> LaunchStatus:
        """POST /miner/launches/{launch_id}/events."""
        path = f"/miner/launches/{launch_id}/events"
        return await self._call(validator, "POST", path, LaunchStatus, event)

    async def bundle(self, validator: Validator, image: ImageRef) -> bytes:
        """GET the path of an ImageRef.

        Raises:
            ProtocolError: ``bad_image_ref``, a path outside of the image routes, or too large.
        """
        if not image.path.startswith("/miner/images/") or ".." in image.path:
            raise ProtocolError("bad_image_ref", "the image's path leads elsewhere")
        if image.size_bytes > MAX_BUNDLE_BYTES:
            raise ProtocolError("bad_image_ref", f"the bundle is over {MAX_BUNDLE_BYTES} bytes")
        return await self._bundles.fetch(
            "GET",
            validator.url,
            image.path,
            peer_hotkey_ss58=validator.hotkey,
            max_bytes=image.size_bytes,
        )

    async def dial_back(self, validator: Validator, request: DialBackRequest) -> DialBack:
        """POST /miner/reachable."""
        return await self._call(validator, "POST", "/miner/reachable", DialBack, request)

    async def leases(self, validator: Validator) -> LeaseList:
        """GET /leases (unsigned: each lease carries its miner's signature)."""
        return await self._signed.get(f"{validator.url}/leases?miner={self._own}", LeaseList)

    async def well_known(self, url: str, nonce: str) -> WellKnown:
        """GET /.well-known/chutes (unsigned: the answer is signed over the nonce)."""
        return await self._signed.get(f"{url}{WELL_KNOWN_PATH}?nonce={nonce}", WellKnown)

    async def _call(
        self,
        validator: Validator,
        method: str,
        path: str,
        answer: type[_ModelT],
        body: BaseModel | None = None,
    ) -> _ModelT:
        return await self._signed.call(
            method, validator.url, path, answer, peer_hotkey_ss58=validator.hotkey, body=body
        )
