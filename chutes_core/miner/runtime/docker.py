"""The docker runtime: an instance is a hardened container of this host's engine.

Path: deployer -> here (asyncio) -> chutes_core.engine (sync, in threads); docker_describe says what
a container is made of. It runs the
runner that the image's last layer brought, as user 10001, on the miner's inside network, where the
relay reaches it; on the outside network too until its launch is active, or for good where its chute
may dial out. What the engine shows is kept from `refresh` to `refresh`, so that a slow engine never
holds up the relay.

Invariants: a container is ours by its labels, so that a killed miner finds it again; an instance
counts as ended only when the engine says so, never because the engine is silent; and `stop` returns
only when its container is gone, for the GPU counts as taken until then.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from chutes_core.base.errors import ChutesError, NotFound
from chutes_core.engine.run import Containers, EngineClient, Seen
from chutes_core.miner.pulls import Pulls
from chutes_core.miner.runtime.base import (
    Ended,
    ImageBundle,
    InstanceSpec,
    PreparedImage,
    Ready,
    RuntimeFailed,
    StandBy,
)
from chutes_core.miner.runtime.docker_describe import Describer, InstanceLimits
from chutes_core.miner.runtime.docker_images import EngineImages
from chutes_core.miner.runtime.docker_waiting import DockerPlaces
from chutes_core.miner.runtime.registries import Registries
from chutes_core.miner.runtime.waiting import Pool
from chutes_core.miner.runtime.walls import Walls
from chutes_core.wire.control import ImageRef, RuntimeName

_POLL_S = 0.2
_RETRY_S = 1.0
_UPKEEP_EVERY = 15  # looks
_TAIL_LINES = 500
_SILENT = frozenset({"engine_unreachable", "engine_timeout", "engine_gone"})


class DockerRuntime:
    """Instances as containers; see `chutes_core.miner.runtime.base.Runtime`.

    Args:
        client: of the engine.
        owner: the miner's hotkey.
        walls: raised, and kept up while this runs.
        limits: of an instance.
        dns: resolvers that instances ask while they have a way out.
        graval_home: a self-contained Python with torch and Triton, mounted read-only; None: the
            image's own interpreter runs the provers (declared stand-ins).
        keep_images: how many images stay in the engine when nothing uses them.
        registries: from where images may be pulled.
        pulls: shown how far each pull is.
    """

    def __init__(
        self,
        client: EngineClient,
        owner: str,
        *,
        walls: Walls,
        limits: InstanceLimits,
        dns: tuple[str, ...] = (),
        graval_home: Path | None = None,
        keep_images: int = 20,
        registries: Registries | None = None,
        pulls: Pulls | None = None,
    ) -> None:
        self._client = client
        self._owner = owner
        self._containers = Containers(client, owner)
        self._walls = walls
        describer = Describer(
            self._containers,
            owner,
            networks=lambda: walls.networks,
            limits=limits,
            dns=dns,
            graval_home=graval_home,
        )
        self._describe = describer.describe
        self._images = EngineImages(client, keep_images, registries or Registries(), pulls)
        self._places = DockerPlaces(
            client,
            owner,
            describe=self._describe,
            environment=describer.environment,
            networks=lambda: walls.networks,
        )
        self._pool = Pool(self._places)
        self._seen: dict[str, Seen] = {}
        self._over: dict[str, Ended] = {}
        self._tails: dict[str, str] = {}
        self._looks = 0
        self._answers = True

    @property
    def name(self) -> RuntimeName:
        """Return the runtime's name on the wire."""
        return "docker"

    async def refresh(self) -> None:
        """List containers and images; every now and then see to the walls too."""
        before, waiting = set(self._seen), self._places.waiting
        try:
            listed = {one.launch_id: one for one in await asyncio.to_thread(self._containers.all)}
            await self._images.refresh()
            if self._looks % _UPKEEP_EVERY == 0:
                await asyncio.to_thread(self._upkeep)
        except ChutesError as error:
            self._note(error)
            return
        self._looks += 1
        self._note(None)
        running = {launch_id for launch_id, one in listed.items() if one.exit_code is None}
        self._places.seen(waiting - running)
        for launch_id in before - listed.keys():  # one that was started since is not in the list
            if self._seen.pop(launch_id, None) is not None:
                self._over.setdefault(launch_id, Ended(None))
        self._seen |= {
            launch_id: seen for launch_id, seen in listed.items() if launch_id not in self._over
        }

    def warm_images(self) -> frozenset[str]:
        """Return ids of images that the engine has under our tag."""
        return self._images.warm

    async def known(self, image: ImageRef) -> PreparedImage | None:
        """Return the image where the engine has its digest."""
        return await self._images.known(image)

    async def prepare(self, bundle: ImageBundle) -> PreparedImage:
        """Load the archive; the engine must then have exactly the granted image."""
        return await self._images.prepare(bundle)

    async def pull(self, image: ImageRef) -> PreparedImage:
        """Pull the granted image from its registry by digest."""
        return await self._images.pull(image)

    async def start(self, spec: InstanceSpec) -> None:
        """Create and start the container; what fails leaves none behind."""
        if not await self._pool.take(spec):
            await self._start(spec)
        seen = await asyncio.to_thread(self._containers.find, spec.launch_id)
        if seen is None:
            raise RuntimeFailed("start_failed", "the container was gone right after its start")
        self._over.pop(spec.launch_id, None)
        self._seen[spec.launch_id] = seen
        logger.bind(launch_id=spec.launch_id, container=seen.container_id[:12]).info(
            "instance was started"
        )

    async def stand_by(self, wanted: Sequence[StandBy]) -> tuple[StandBy, ...]:
        """Hold containers ready, for stand-ins alone: one keeps the devices it began with."""
        return await self._pool.hold([one for one in wanted if one.declared])

    async def _start(self, spec: InstanceSpec) -> None:
        try:
            await asyncio.to_thread(self._containers.start, self._describe(spec, False))
        except ChutesError as error:
            if error.code in _SILENT or not await asyncio.to_thread(self._walls.mend):
                raise
            await asyncio.to_thread(self._containers.start, self._describe(spec, False))

    async def wait_ready(self, launch_id: str, timeout_s: float) -> Ready:
        """Return the port and key of the ready line in the container's log."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while loop.time() < deadline:
            seen = await asyncio.to_thread(self._containers.find, launch_id)
            if seen is None:
                raise RuntimeFailed("instance_ended", "the container has gone before listening")
            self._seen[launch_id] = seen
            said = await asyncio.to_thread(self._containers.stdout_head, seen.container_id)
            ready = _ready(said)
            if ready is not None and self.host(launch_id):
                return ready
            if seen.exit_code is not None:
                raise RuntimeFailed(
                    "instance_ended",
                    f"the instance ended with {seen.exit_code} before listening",
                    hint="its last output says why",
                )
            await asyncio.sleep(_POLL_S)
        raise RuntimeFailed("listen_timeout", f"the instance did not listen in {timeout_s:.0f} s")

    def host(self, launch_id: str) -> str:
        """Return the container's address on the inside network."""
        seen = self._seen.get(launch_id)
        return seen.networks.get(self._walls.networks.inside.name, "") if seen else ""

    async def settle(self, launch_id: str) -> None:
        """Cut the way out of an instance that had it for its start-up only."""
        seen = self._seen.get(launch_id)
        if seen is None or seen.egress == "always":
            return
        if await asyncio.to_thread(self._containers.cut, seen, self._walls.networks.outside):
            logger.bind(launch_id=launch_id).info("way out of the instance was cut")
            again = await asyncio.to_thread(self._containers.find, launch_id)
            if again is not None:
                self._seen[launch_id] = again

    def ended(self, launch_id: str) -> Ended | None:
        """Return how an instance ended as of the last look; None while it runs or is unseen."""
        if launch_id in self._over:
            return self._over[launch_id]
        seen = self._seen.get(launch_id)
        if seen is None:
            return Ended(None) if self._answers else None
        return _ended(seen)

    def instances(self) -> tuple[str, ...]:
        """Return the launch ids of all containers of this miner."""
        return tuple(sorted(self._seen.keys() - self._pool.held.keys()))

    def log_tail(self, launch_id: str, max_chars: int) -> str:
        """Return the end of an instance's output; asks the engine (in a thread) while it runs."""
        seen = self._seen.get(launch_id)
        if launch_id not in self._tails and seen is not None:
            with contextlib.suppress(ChutesError):
                output = self._containers.output(seen.container_id, max_lines=_TAIL_LINES)
                return output[-max_chars:]
        return self._tails.get(launch_id, "")[-max_chars:]

    async def stop(self, launch_id: str, grace_s: float) -> None:
        """SIGTERM, grace, SIGKILL, keep the log's end, remove; waits out a silent engine."""
        while True:
            try:
                self._over[launch_id] = await asyncio.to_thread(self._stop, launch_id, grace_s)
                self._seen.pop(launch_id, None)
                return
            except ChutesError as error:
                self._note(error)
                if error.code not in _SILENT:
                    logger.bind(launch_id=launch_id, code=error.code).warning(
                        "instance could not be removed yet: {}", error.message
                    )
            await asyncio.sleep(_RETRY_S)

    def forget(self, launch_id: str) -> None:
        """Drop what was kept of an ended instance."""
        self._tails.pop(launch_id, None)
        self._over.pop(launch_id, None)

    async def close(self) -> None:
        """Take the walls down where nothing is left inside them."""
        try:
            if not await asyncio.to_thread(self._containers.all):
                await asyncio.to_thread(self._walls.take_down)
        except ChutesError as error:
            logger.bind(code=error.code).warning("networks were left behind: {}", error.message)

    def _upkeep(self) -> None:
        self._walls.keep()
        self._images.trim()

    def _stop(self, launch_id: str, grace_s: float) -> Ended:
        seen = self._containers.find(launch_id)
        if seen is None:
            return Ended(None)
        if seen.exit_code is None:
            self._containers.stop(seen.container_id, grace_s)
            seen = self._containers.find(launch_id) or seen
        with contextlib.suppress(NotFound):
            self._tails[launch_id] = self._containers.output(
                seen.container_id, max_lines=_TAIL_LINES
            )
        self._containers.remove(seen.container_id)
        return _ended(seen) or Ended(None)

    def _note(self, error: ChutesError | None) -> None:
        """Say once that the engine is silent, and once that it is back."""
        if error is not None and self._answers:
            self._answers = False
            logger.bind(code=error.code).error("Docker engine: {}", error)
        elif error is None and not self._answers:
            self._answers = True
            logger.info("Docker engine answers again")


def _ended(seen: Seen) -> Ended | None:
    """Return an end in the runtimes' common form: engines add 128 to a signal's number."""
    code = seen.exit_code
    if code is None:
        return None
    code = 128 - code if 128 < code < 192 else code
    return Ended(code, "out_of_memory" if seen.out_of_memory else "")


def _ready(output: str) -> Ready | None:
    for line in output.splitlines():
        try:
            record = json.loads(line)
            return Ready(int(record["port"]), str(record["public_key"]))
        except (ValueError, KeyError, TypeError):
            continue
    return None
