"""Image bundles fetched from validators, kept by digest.

Invariant: a file in the cache has the SHA-256 that names it: it is written beside, checked, and
renamed into place.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from chutes_core.base.errors import ProtocolError
from chutes_core.miner.discovery import Validator
from chutes_core.miner.runtime.base import ImageBundle
from chutes_core.miner.validator_api import ValidatorApi
from chutes_core.wire.control import ImageRef


class Bundles:
    """The folder of fetched bundles; ``measured`` is told the bytes and seconds of each."""

    def __init__(
        self,
        directory: Path,
        api: ValidatorApi,
        measured: Callable[[int, float], None] | None = None,
    ) -> None:
        self._measured = measured
        self._directory = directory
        self._api = api
        self._locks: dict[str, asyncio.Lock] = {}
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def get(self, validator: Validator, image: ImageRef) -> ImageBundle:
        """Return the bundle, fetched once.

        Raises:
            ProtocolError: ``bundle_mismatch``: its size or digest differs from the grant's.
        """
        path = self._directory / f"{image.sha256}.zip"
        async with self._locks.setdefault(image.sha256, asyncio.Lock()):
            if not await asyncio.to_thread(path.exists):
                began = time.monotonic()
                data = await self._api.bundle(validator, image)
                if self._measured is not None:
                    self._measured(len(data), time.monotonic() - began)
                await asyncio.to_thread(_keep, path, data, image)
        return ImageBundle(image.image_id, image.name, image.sha256, path)

    async def used(self, image: ImageRef) -> None:
        """Keep the file: bundles are small, and a torn venv is made anew from it."""


def _keep(path: Path, data: bytes, image: ImageRef) -> None:
    if len(data) != image.size_bytes or hashlib.sha256(data).hexdigest() != image.sha256:
        raise ProtocolError("bundle_mismatch", "the bundle is not the one that was granted")
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
