"""Builds images on a Docker engine, several at once, on a guarded network.

Path: catalog/images -> `DockerBuilder.build` -> build_job (the steps of one image). Invariant: no
build begins where the rules around its network cannot be set, unless that is allowed; `close` cuts
off every running one.
"""

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.engine import archive
from chutes_core.engine.build import Build
from chutes_core.engine.connect import Engine
from chutes_core.engine.firewall import Firewall, host_resolvers, rules_for
from chutes_core.engine.networks import ensure_networks
from chutes_core.validator.catalog.build_job import Job, name_of
from chutes_core.validator.catalog.builder import (
    Artefact,
    BuildStopped,
    DockerBuildLimits,
    Log,
)
from chutes_core.validator.domain.images import Image
from chutes_core.validator.store.blobs import Blobs


@dataclass(frozen=True)
class Guard:
    """Where builds reach: ``required`` refuses to build where the rules cannot be set.

    ``owner`` tells this validator's network from others on the same engine; ``allowed`` are private
    ranges that builds may reach all the same, e.g. an operator's package mirror.
    """

    owner: str
    required: bool = True
    allowed: tuple[str, ...] = ()


class DockerBuilder:
    """Builds on one engine.

    Args:
        blobs: bundles come from there, archives go there.
        connect: gives a client of the engine; called for each build, so that an engine that was
            restarted is found again.
        guard: the network of builds.
        limits: of one image.
        firewall: sets the network's rules.
    """

    def __init__(
        self,
        blobs: Blobs,
        connect: Callable[[], Engine],
        guard: Guard,
        limits: DockerBuildLimits | None = None,
        firewall: Firewall | None = None,
    ) -> None:
        self._blobs = blobs
        self._connect = connect
        self._guard = guard
        self._limits = limits or DockerBuildLimits()
        self._firewall = firewall or Firewall()
        self._lock = threading.Lock()
        self._running: set[Build] = set()
        self._closed = False

    def build(self, image: Image, log: Log) -> Artefact:
        """Build an image (see `Builder`)."""
        client = self._connect()
        try:
            network = self._network(client)
            with tempfile.TemporaryDirectory(prefix="chutes-build-") as work:
                return Job(self, client, network, image, log, Path(work)).run()
        finally:
            client.close()

    def forget(self, image: Image) -> None:
        """Remove the image from the engine; an engine that is away keeps it."""
        try:
            client = self._connect()
        except ChutesError as error:
            logger.bind(image=image.full_name).warning("image stays in the engine: {}", error)
            return
        with contextlib.closing(client), contextlib.suppress(ChutesError):
            archive.remove(client, name_of(image))

    def close(self) -> None:
        """Cut off what is being built; no build begins any more."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for build in running:
            build.cancel()

    @property
    def limits(self) -> DockerBuildLimits:
        """Return the limits of one image."""
        return self._limits

    @property
    def blobs(self) -> Blobs:
        """Return where bundles and archives lie."""
        return self._blobs

    @property
    def closed(self) -> bool:
        """Tell whether `close` was called."""
        return self._closed

    @contextmanager
    def cuttable(self, build: Build) -> Iterator[None]:
        """Let `close` reach a build while it runs.

        Raises:
            BuildStopped: `close` came first.
        """
        with self._lock:
            if self._closed:
                raise BuildStopped
            self._running.add(build)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(build)

    def _network(self, client: Engine) -> str:
        """Return the guarded network, with its rules set anew where they were lost."""
        networks = ensure_networks(client, self._guard.owner)
        rules = rules_for(
            networks, self._guard.owner[:60], dns=host_resolvers(), allowed=self._guard.allowed
        )
        try:
            self._firewall.ensure(rules)
        except Unavailable as error:
            if self._guard.required:
                raise
            logger.warning("builds can reach private addresses: {}", error)
        return networks.outside.name
