"""Stand-bys as containers: started without a way out, handed over by name and one line on stdin.

Path: `Pool` -> here (asyncio) -> engine (sync, in threads). Invariant: until its launch a stand-by
reaches nobody and nobody reaches it but the miner, for the image's interpreter is its maker's; it
has no device, so that it can stand by while a GPU serves somebody else.
"""

import asyncio
from collections.abc import Callable, Mapping

from chutes_core.base.errors import NotFound
from chutes_core.engine.handover import Line, attach, give
from chutes_core.engine.networks import Networks
from chutes_core.engine.run import Containers, ContainerSpec, EngineClient
from chutes_core.miner.runtime.base import InstanceSpec, StandBy

_GRACE_S = 2.0


class DockerPlaces:
    """See `waiting.Places`.

    Args:
        client: of the engine.
        owner: the miner's hotkey.
        describe: makes a container's description of an instance's.
        environment: makes a container's environment of the runner's.
        networks: as they are now.
    """

    def __init__(
        self,
        client: EngineClient,
        owner: str,
        *,
        describe: Callable[[InstanceSpec, bool], ContainerSpec],
        environment: Callable[[Mapping[str, str]], dict[str, str]],
        networks: Callable[[], Networks],
    ) -> None:
        self._client = client
        self._owner = owner
        self._containers = Containers(client, owner)
        self._describe = describe
        self._environment = environment
        self._networks = networks
        self._lines: dict[str, tuple[str, Line]] = {}
        self._over: frozenset[str] = frozenset()

    async def put_up(self, place: str, stand_by: StandBy) -> None:
        """Create and start a container that waits, and take hold of its stdin."""
        await asyncio.to_thread(self._put_up, place, stand_by)

    async def hand_over(self, place: str, launch_id: str, runner_env: Mapping[str, str]) -> None:
        """Give it the launch's name, its way out and its line."""
        container_id, line = self._lines.pop(place)
        environment = self._environment(runner_env)
        try:
            await asyncio.to_thread(
                give, self._client, container_id, self._owner, launch_id, self._networks().outside
            )
            await asyncio.to_thread(line.send, environment)
        finally:
            line.close()

    def is_up(self, place: str) -> bool:
        """Tell whether it waited when the engine was looked at last."""
        return place in self._lines and place not in self._over

    async def take_down(self, name: str) -> None:
        """Remove it."""
        await asyncio.to_thread(self._take_down, name)

    @property
    def waiting(self) -> frozenset[str]:
        """Return what waits now."""
        return frozenset(self._lines)

    def seen(self, over: frozenset[str]) -> None:
        """Take note of what has ended: it waited before the engine was asked, and did not run."""
        self._over = over

    def _put_up(self, place: str, stand_by: StandBy) -> None:
        spec = InstanceSpec(
            launch_id=place,
            image=stand_by.image,
            runner_env=stand_by.runner_env,
            gpu_count=stand_by.gpu_count,
            allow_egress=stand_by.allow_egress,
            cache=stand_by.cache,
        )
        container_id = self._containers.start(self._describe(spec, True))
        self._lines[place] = (container_id, attach(self._client, container_id))

    def _take_down(self, name: str) -> None:
        _, line = self._lines.pop(name, ("", None))
        if line is not None:
            line.close()
        found = self._containers.find(name)
        if found is None:
            return
        try:
            self._containers.stop(found.container_id, _GRACE_S)
            self._containers.remove(found.container_id)
        except NotFound:
            return
