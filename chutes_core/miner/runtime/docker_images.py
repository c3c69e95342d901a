"""The images that a docker runtime starts instances from: looked up, loaded or pulled, trimmed.

Path: DockerRuntime -> here (asyncio) -> chutes_core.engine (sync, in threads). Invariant: what is
returned as prepared is the granted image, under the name that this engine has for it: an engine
names an image by its configuration, one with containerd's store by its manifest, and the validator
that built it may have an engine of the other kind.
"""

import asyncio

from loguru import logger

from chutes_core.engine import archive, registry, shelf
from chutes_core.engine.run import EngineClient
from chutes_core.miner.pulls import Pulls
from chutes_core.miner.runtime.base import ImageBundle, PreparedImage
from chutes_core.miner.runtime.registries import Registries
from chutes_core.wire.control import ImageRef

IMAGE_TAG = "chutes-image"


class EngineImages:
    """Images under our tag in one engine.

    Args:
        client: of the engine.
        keep: so many stay when nothing uses them.
        registries: from where images may be pulled.
        pulls: shown how far each pull is.
    """

    def __init__(
        self,
        client: EngineClient,
        keep: int,
        registries: Registries,
        pulls: Pulls | None = None,
    ) -> None:
        self._pulls = pulls or Pulls()
        self._client = client
        self._keep = keep
        self._registries = registries
        self._ids: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.warm: frozenset[str] = frozenset()

    async def refresh(self) -> None:
        """Look which images are there.

        Raises:
            ChutesError: the engine does not answer.
        """
        self.warm = await asyncio.to_thread(shelf.kept, self._client, IMAGE_TAG)

    async def known(self, image: ImageRef) -> PreparedImage | None:
        """Return the image where the engine has it."""
        held = self._ids.get(image.registry_ref or image.image_digest, image.image_digest)
        if not await asyncio.to_thread(archive.holds, self._client, held):
            return None
        await asyncio.to_thread(shelf.put, self._client, held, IMAGE_TAG, image.image_id)
        self.warm |= {image.image_id}
        return PreparedImage(image.image_id, image.sha256, held)

    async def prepare(self, bundle: ImageBundle) -> PreparedImage:
        """Load the archive; the engine must then have exactly the granted image."""
        lock = self._locks.setdefault(bundle.image_digest, asyncio.Lock())
        async with lock:
            held = await asyncio.to_thread(
                archive.load,
                self._client,
                bundle.path,
                image_digest=bundle.image_digest,
                tag=f"{IMAGE_TAG}:{bundle.image_id}",
            )
        self._ids[bundle.image_digest] = held
        self.warm |= {bundle.image_id}
        logger.bind(image=bundle.name, digest=bundle.image_digest).info("image was loaded")
        return PreparedImage(bundle.image_id, bundle.sha256, held)

    async def pull(self, image: ImageRef) -> PreparedImage:
        """Pull the image by its digest, which the engine checks."""
        access = self._registries.access_to(image)
        async with self._locks.setdefault(image.image_digest, asyncio.Lock()):
            with self._pulls.fetching(image.image_id, image.name, "registry") as pull:
                held = await asyncio.to_thread(
                    registry.pull_exactly,
                    self._client,
                    image.registry_ref,
                    access,
                    lambda digest: shelf.put(self._client, digest, IMAGE_TAG, image.image_id),
                    lambda got, total: self._pulls.moved(pull, got, total),
                )
        self._ids[image.registry_ref] = held  # its digest was checked; the other is a mere word
        self.warm |= {image.image_id}
        logger.bind(image=image.name, ref=image.registry_ref).info("image was pulled")
        return PreparedImage(image.image_id, image.sha256, held)

    def trim(self) -> None:
        """Remove what was used longest ago; sync, called from a thread.

        Raises:
            ChutesError: the engine does not answer.
        """
        for image_id in shelf.trim(self._client, IMAGE_TAG, self._keep):
            logger.bind(image_id=image_id).info("image was removed: others were used since")
