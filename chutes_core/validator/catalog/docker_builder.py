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
from chutes_core.engine import archive, shelf
from chutes_core.engine.build import Build
from chutes_core.engine.connect import Engine
from chutes_core.engine.firewall import Firewall, host_resolvers, rules_for
from chutes_core.engine.networks import ensure_networks
from chutes_core.validator.catalog.build_job import REPOSITORY, Job, id_of, name_of
from chutes_core.validator.catalog.builder import (
    Artefact,
    BuildStopped,
    DockerBuildLimits,
    Holds,
    Log,
)
from chutes_core.validator.catalog.layer import BUILDER_LABEL
from chutes_core.validator.catalog.registry import Registry
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
        registry: where images go for miners; None: into archives among the blobs.
        label: tells this builder's images in an engine that others use too; default: the guard's
            owner.
    """

    def __init__(
        self,
        blobs: Blobs,
        connect: Callable[[], Engine],
        guard: Guard,
        limits: DockerBuildLimits | None = None,
        firewall: Firewall | None = None,
        registry: Registry | None = None,
        label: str = "",
    ) -> None:
        self._blobs = blobs
        self._connect = connect
        self._guard = guard
        self._limits = limits or DockerBuildLimits()
        self._firewall = firewall or Firewall()
        self._registry = registry
        self._label = label or guard.owner
        self._lock = threading.Lock()
        self._running: set[Build] = set()
        self._closed = False
        self._begun = self._jobs = 0

    def build(self, image: Image, log: Log) -> Artefact:
        """Build an image (see `Builder`)."""
        client = self._connect()
        try:
            network = self._network(client)
            with self._counted(), tempfile.TemporaryDirectory(prefix="chutes-build-") as work:
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

    def sweep(self, holds: Holds) -> int:
        """Remove this builder's images whose records are gone, of times when the engine was away.

        Raises:
            Unavailable: the engine is away.
        """
        with contextlib.closing(self._connect()) as client:
            with self._lock:
                quiet, begun = self._jobs == 0, self._begun
            found = shelf.labelled(client, BUILDER_LABEL, self.label)
            with self._lock:
                quiet = quiet and begun == self._begun
            gone = [name for name in found.names_under(REPOSITORY) if not holds(id_of(name))]
            # A build under way names its image only at its end.
            unnamed = found.unnamed if quiet else ()
            return sum(shelf.take_away(client, one) for one in (*gone, *unnamed))

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
    def registry(self) -> Registry | None:
        """Return where images go for miners."""
        return self._registry

    @property
    def label(self) -> str:
        """Return the value of this builder's label on its images."""
        return self._label

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

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._begun += 1
            self._jobs += 1
        try:
            yield
        finally:
            with self._lock:
                self._jobs -= 1

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
