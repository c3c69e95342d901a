"""Builds images on a Docker engine: the Dockerfile, checks, the runner's layer, the archive.

Path: catalog/images -> `DockerBuilder.build` -> engine/{pull,build,check,archive} -> blobs. Steps:
look at the bases (no triggers), build on the guarded network, look at the result (its Python must
be 3.10 or later), build the runner's layer on top and try it as the user that instances run as,
save. Invariant: what fails because of the image ends as BuildFailed with the last lines of output;
what fails because of this host raises Unavailable, and the image is tried again; nothing unnamed
is left in the engine by a failed build.
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
from chutes_core.engine.build import (
    Build,
    BuildCancelled,
    BuildLimits,
    BuildRequest,
)
from chutes_core.engine.cgroup import build_cgroup
from chutes_core.engine.check import ImageFacts, PythonFacts, image_facts, python_facts
from chutes_core.engine.connect import Engine
from chutes_core.engine.failures import explained
from chutes_core.engine.firewall import Firewall, host_resolvers, rules_for
from chutes_core.engine.networks import ensure_networks
from chutes_core.engine.pull import pull
from chutes_core.validator.catalog.builder import (
    Artefact,
    BuildFailed,
    BuildStopped,
    DockerBuildLimits,
    Log,
)
from chutes_core.validator.catalog.context import DOCKERFILE, tar_of_bundle, tar_of_files
from chutes_core.validator.catalog.dockerfile import bases
from chutes_core.validator.catalog.layer import layer_dockerfile
from chutes_core.validator.catalog.wheel import runner_wheel
from chutes_core.validator.domain.images import Image
from chutes_core.validator.store.blobs import Blobs

MIN_PYTHON = (3, 10)
MAX_STATUS = 3000
_HOST_FAULTS = frozenset(("engine_unreachable", "engine_timeout", "firewall_unavailable"))
REPOSITORY = "chutes-built"


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
                return _Job(self, client, network, image, log, Path(work)).run()
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
            archive.remove(client, _name_of(image))

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


class _Job:
    """One image on its way through the steps."""

    def __init__(
        self,
        builder: DockerBuilder,
        client: Engine,
        network: str,
        image: Image,
        log: Log,
        work: Path,
    ) -> None:
        self._builder = builder
        self._client = client
        self._network = network
        self._image = image
        self._log = log
        self._work = work
        self._limits = builder.limits
        self._lines = 0

    def run(self) -> Artefact:
        """Take every step."""
        for base in bases(self._image.dockerfile):
            self._check_base(base)
        self._step("building the Dockerfile")
        made = self._build(self._bundle_context())
        try:
            facts = self._check_result(made)
            python = self._check_python(made)
            self._step("installing the runner")
            final = self._build(self._layer_context(made, facts, python))
        except BaseException:
            self._discard(made)
            raise
        return self._keep(final)

    def _check_base(self, base: str) -> None:
        with self._blaming_image():
            found = self._facts(base)
            if found is None:
                self._step(f"pulling {base}")
                pull(self._client, base, lambda line: self._log("stdout", line), self._keeps_on)
                if not self._keeps_on():
                    raise BuildStopped
                found = image_facts(self._client, base)
        if found.triggers:
            raise BuildFailed(f"the base image {base} has ONBUILD triggers; choose another base")

    def _check_result(self, made: str) -> ImageFacts:
        facts = image_facts(self._client, made)
        if facts.volumes:
            raise BuildFailed(
                f"the image declares volumes ({', '.join(facts.volumes)[:200]}): an instance has a"
                " read-only root and writes to /tmp; remove VOLUME, or choose another base"
            )
        if facts.os != "linux":
            raise BuildFailed(f"the image is for {facts.os or 'no'} systems; only linux can run")
        self._check_size(facts)
        return facts

    def _check_size(self, facts: ImageFacts) -> None:
        if facts.size_bytes > self._limits.image_bytes:
            raise BuildFailed(
                f"the image has {facts.size_bytes} bytes; at most {self._limits.image_bytes} are"
                " allowed: remove caches in the RUN that makes them, load models at start-up"
            )

    def _check_python(self, made: str) -> PythonFacts:
        with self._blaming_image():
            python = python_facts(self._client, made)
        shown = ".".join(str(part) for part in python.version)
        if python.version[:2] < MIN_PYTHON:
            raise BuildFailed(
                f"the image's {python.command} is Python {shown}; 3.10 or later is needed: start"
                " from another base, or use Image.with_python()"
            )
        if not python.has_pip:
            raise BuildFailed(
                f"the image's {python.command} ({python.executable}) has no pip: install it, e.g."
                " Image.run_command('python -m ensurepip')"
            )
        self._step(f"found Python {shown} at {python.executable}")
        return python

    def _bundle_context(self) -> Path:
        target = self._work / "context.tar"
        tar_of_bundle(self._builder.blobs.path(self._image.bundle_sha256), target)
        return target

    def _layer_context(self, made: str, facts: ImageFacts, python: PythonFacts) -> Path:
        if facts.entrypoint:
            self._step("the image's entry point is replaced: an instance starts the runner")
        wheel = runner_wheel()
        target = self._work / "layer.tar"
        text = layer_dockerfile(made, python.executable, wheel.name)
        tar_of_files(text, {wheel.name: wheel.data}, target)
        return target

    def _build(self, context: Path) -> str:
        limits = self._limits
        with build_cgroup(self._client, limits.processes) as parent, self._blaming_image():
            asked = BuildRequest(
                context=context,
                dockerfile=DOCKERFILE,
                network=self._network,
                limits=BuildLimits(
                    time_s=limits.time_s,
                    log_bytes=limits.log_bytes,
                    log_lines=limits.log_lines,
                    memory_bytes=limits.memory_bytes,
                    cpus=limits.cpus,
                    min_free_bytes=limits.min_free_bytes,
                    cgroup_parent=parent,
                ),
            )
            build = Build(self._client, asked, self._log)
            with self._builder.cuttable(build):
                try:
                    return build.run()
                except BuildCancelled as error:
                    raise BuildStopped from error
                except ChutesError as error:
                    if error.code in _HOST_FAULTS:
                        raise
                    raise BuildFailed(_status(error, build.last_lines)) from error

    def _keep(self, final: str) -> Artefact:
        """Name the image and save it among the blobs."""
        try:
            facts = image_facts(self._client, final)
            self._check_size(facts)
            with explained("name an image"):
                repository, _, tag = _name_of(self._image).partition(":")
                self._client.api.tag(final, repository, tag)
        except BaseException:
            self._discard(final)
            raise
        self._step("saving the image for miners")
        limit_bytes = 2 * self._limits.image_bytes
        chunks = archive.save(self._client, final)
        blob = self._builder.blobs.put(self._while_open(chunks), limit_bytes=limit_bytes)
        self._step(f"saved {final}: {blob.size_bytes} bytes")
        return Artefact(final, blob.sha256, blob.size_bytes)

    def _while_open(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if not self._keeps_on():
                raise BuildStopped
            yield chunk

    def _facts(self, image: str) -> ImageFacts | None:
        with contextlib.suppress(ChutesError):
            return image_facts(self._client, image)
        return None

    def _keeps_on(self) -> bool:
        return not self._builder.closed

    @contextmanager
    def _blaming_image(self) -> Iterator[None]:
        """Turn typed errors into BuildFailed, except those that are this host's fault."""
        try:
            yield
        except ChutesError as error:
            if error.code in _HOST_FAULTS:
                raise
            raise BuildFailed(_status(error, "")) from error

    def _discard(self, made: str) -> None:
        """Remove an image that nothing names."""
        with contextlib.suppress(ChutesError):
            if not image_facts(self._client, made).names:
                archive.remove(self._client, made)

    def _step(self, text: str) -> None:
        self._log("stdout", f"== {text}")


def _name_of(image: Image) -> str:
    return f"{REPOSITORY}:{image.image_id}"


def _status(error: ChutesError, last_lines: str) -> str:
    hint = f" ({error.hint})" if error.hint else ""
    tail = f"\nlast lines:\n{last_lines}" if last_lines else ""
    return f"{error.message}{hint}{tail}"[:MAX_STATUS]
