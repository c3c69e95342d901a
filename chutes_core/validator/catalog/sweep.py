"""What deleted images left outside of the store: in an engine or a registry that was away then.

Path: loops -> `ImageSweep.run_once` -> the builder's engine, the registry. Invariant: what an image
names, and what may belong to a build under way, stays; what cannot be removed now is tried again.
"""

from typing import Protocol

from loguru import logger

from chutes_core.validator.catalog.builder import Builder
from chutes_core.validator.store.database import Store


class Drops(Protocol):
    """A registry that can remove images."""

    def drop(self, reference: str) -> bool:
        """Remove an image; True where nothing is left to do.

        Raises:
            Unavailable: it is away.
        """
        ...


class ImageSweep:
    """Removes leftovers; each call looks once.

    Args:
        store: says which images there are, and what was left in registries.
        builder: knows the engine.
        registry: where images went, or None.
    """

    def __init__(self, store: Store, builder: Builder, registry: Drops | None) -> None:
        self._store = store
        self._builder = builder
        self._registry = registry

    def run_once(self) -> int:
        """Remove what nobody names any more; return how many were removed.

        Raises:
            Unavailable: the engine or the registry is away; the next call tries again.
        """
        images = self._store.images
        removed = self._builder.sweep(lambda image_id: images.get(image_id) is not None)
        if self._registry is not None:
            removed += sum(self._drop(self._registry, *left) for left in images.left())
        if removed:
            logger.bind(count=removed).info("Leftovers of deleted images were removed")
        return removed

    def _drop(self, registry: Drops, reference: str, image_id: str) -> bool:
        """Remove one image from the registry, unless one of the same name holds it or may soon."""
        image = self._store.images.get(image_id)
        if image is not None and image.state in ("pending", "building"):
            return False
        again = image is not None and image.registry_ref == reference
        if not again and not registry.drop(reference):
            return False
        self._store.images.cleared(reference)
        return not again
