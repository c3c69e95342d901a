"""The docker runtime, with the system chute's launches run by the miner's own software beside it.

A launch of the system chute (wire/system.py) attests GPUs and runs no code of anybody: it has no
image, and the runner that the miner has itself is started as a process of the host. Everything else
goes into containers. Invariant: an instance belongs to exactly one of both, told by where its
traces are; nothing with an image ever runs outside of a container.
"""

import asyncio
from collections.abc import Sequence

from chutes_core.miner.runtime.base import (
    Ended,
    ImageBundle,
    InstanceSpec,
    PreparedImage,
    Ready,
    Runtime,
    StandBy,
)
from chutes_core.miner.runtime.process import ProcessRuntime
from chutes_core.wire.control import ImageRef, RuntimeName
from chutes_core.wire.system import NO_IMAGE_SHA256


class WithSystemRunner:
    """See `chutes_core.miner.runtime.base.Runtime`."""

    def __init__(self, containers: Runtime, own: ProcessRuntime) -> None:
        self._containers = containers
        self._own = own

    @property
    def name(self) -> RuntimeName:
        """Return the name of what runs chutes."""
        return self._containers.name

    async def refresh(self) -> None:
        """Look at both."""
        await asyncio.gather(self._containers.refresh(), self._own.refresh())

    def warm_images(self) -> frozenset[str]:
        """Return the images that chutes can start from."""
        return self._containers.warm_images()

    async def known(self, image: ImageRef) -> PreparedImage | None:
        """Return what is prepared; the system chute always is."""
        if image.sha256 == NO_IMAGE_SHA256:
            return await self._own.known(image)
        return await self._containers.known(image)

    async def prepare(self, bundle: ImageBundle) -> PreparedImage:
        """Prepare a chute's image."""
        return await self._containers.prepare(bundle)

    async def pull(self, image: ImageRef) -> PreparedImage:
        """Pull a chute's image."""
        return await self._containers.pull(image)

    async def start(self, spec: InstanceSpec) -> None:
        """Start the system chute as a process, a chute as a container."""
        system = spec.image.sha256 == NO_IMAGE_SHA256
        await (self._own if system else self._containers).start(spec)

    async def stand_by(self, wanted: Sequence[StandBy]) -> tuple[StandBy, ...]:
        """Hold containers ready."""
        return await self._containers.stand_by(wanted)

    async def wait_ready(self, launch_id: str, timeout_s: float) -> Ready:
        """Return where the instance listens."""
        return await self._of(launch_id).wait_ready(launch_id, timeout_s)

    def host(self, launch_id: str) -> str:
        """Return the address at which this host reaches the instance."""
        return self._of(launch_id).host(launch_id)

    async def settle(self, launch_id: str) -> None:
        """Take an active instance's way out."""
        await self._of(launch_id).settle(launch_id)

    def ended(self, launch_id: str) -> Ended | None:
        """Return how the instance ended, or None."""
        return self._of(launch_id).ended(launch_id)

    def instances(self) -> tuple[str, ...]:
        """Return the instances of both."""
        return (*self._containers.instances(), *self._own.instances())

    def log_tail(self, launch_id: str, max_chars: int) -> str:
        """Return the end of the instance's output."""
        return self._of(launch_id).log_tail(launch_id, max_chars)

    async def stop(self, launch_id: str, grace_s: float) -> None:
        """End the instance."""
        await self._of(launch_id).stop(launch_id, grace_s)

    def forget(self, launch_id: str) -> None:
        """Remove the traces of an ended instance."""
        self._of(launch_id).forget(launch_id)

    def _of(self, launch_id: str) -> Runtime:
        return self._own if launch_id in self._own.instances() else self._containers
