"""The steps of one image's build: the Dockerfile, checks, the runner's layer, the archive.

Path: docker_builder -> `Job.run` -> engine/{pull,build,check,archive} -> blobs, or a registry. Look
at the bases (no triggers), build on the guarded network, look at the result (its Python must be
3.10 or later), build the runner's layer on top and try it as the user that instances run as, save
or push. Invariant: what fails because of the image ends as BuildFailed with a code, what to do, and
the last lines of output; what fails because of this host raises Unavailable, and the image is tried
again; nothing unnamed is left in the engine by a failed build.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.engine import archive
from chutes_core.engine.build import (
    LAST_LINES,
    Build,
    BuildCancelled,
    BuildLimits,
    BuildRequest,
    Stream,
)
from chutes_core.engine.cgroup import build_cgroup
from chutes_core.engine.check import ImageFacts, PythonFacts, image_facts, python_facts
from chutes_core.engine.connect import Engine
from chutes_core.engine.failures import explained
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
from chutes_core.validator.catalog.registry import Registry
from chutes_core.validator.catalog.wheel import runner_wheel
from chutes_core.validator.domain.images import Image
from chutes_core.validator.store.blobs import Blobs

MIN_PYTHON = (3, 10)
CUDA_MAJOR = "12"
MAX_STATUS = 4000
MAX_TAIL_LINE = 200
REPOSITORY = "chutes-built"
_HOST_FAULTS = frozenset(("engine_unreachable", "engine_timeout", "firewall_unavailable"))


class Shop(Protocol):
    """What a job needs of the builder that it belongs to."""

    @property
    def limits(self) -> DockerBuildLimits:
        """Return the limits of one image."""
        ...

    @property
    def blobs(self) -> Blobs:
        """Return where bundles and archives lie."""
        ...

    @property
    def registry(self) -> Registry | None:
        """Return where images go; None: into archives among the blobs."""
        ...

    @property
    def label(self) -> str:
        """Return what tells this builder's images in an engine."""
        ...

    @property
    def closed(self) -> bool:
        """Tell whether no build may go on."""
        ...

    def cuttable(self, build: Build) -> AbstractContextManager[None]:
        """Let a closing builder reach a build while it runs."""
        ...


class Job:
    """One image on its way through the steps; `run` once."""

    def __init__(
        self,
        builder: Shop,
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
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._work = work
        self._limits = builder.limits

    def run(self) -> Artefact:
        """Take every step and return what they made.

        Raises:
            BuildFailed, BuildStopped, Unavailable: see `Builder`.
        """
        for base in bases(self._image.dockerfile):
            self._check_base(base)
        self._step("building the Dockerfile")
        made = self._build(self._bundle_context())
        try:
            facts = self._check_result(made)
            self._check_cuda(facts)
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
                pull(self._client, base, lambda line: self._say("stdout", line), self._keeps_on)
                if not self._keeps_on():
                    raise BuildStopped
                found = image_facts(self._client, base)
        if found.triggers:
            raise self._refused(
                "base_with_triggers",
                f"the base image {base} has ONBUILD triggers",
                "choose another base",
            )

    def _check_result(self, made: str) -> ImageFacts:
        facts = image_facts(self._client, made)
        if facts.volumes:
            raise self._refused(
                "image_with_volumes",
                f"the image declares volumes ({', '.join(facts.volumes)[:200]}): an instance has a"
                " read-only root and writes to /tmp",
                "remove VOLUME, or choose another base",
            )
        if facts.os != "linux":
            text = f"the image is for {facts.os or 'no'} systems; only linux can run"
            raise self._refused("wrong_platform", text, "build for linux")
        self._check_size(facts)
        return facts

    def _check_size(self, facts: ImageFacts) -> None:
        if facts.size_bytes > self._limits.image_bytes:
            raise self._refused(
                "image_too_large",
                f"the image has {facts.size_bytes} bytes; at most {self._limits.image_bytes} are"
                " allowed",
                "remove caches in the RUN that makes them, load models at start-up",
            )

    def _check_cuda(self, facts: ImageFacts) -> None:
        """Refuse a CUDA that GPU hosts do not run; an image without one may work on the CPU."""
        if not facts.cuda:
            self._step("no CUDA in the image: fine on the CPU; for a GPU see images/cuda")
        elif facts.cuda.partition(".")[0] != CUDA_MAJOR:
            raise self._refused(
                "wrong_cuda",
                f"the image has CUDA {facts.cuda}; GPU hosts run CUDA {CUDA_MAJOR}.x",
                f"start from a base with CUDA {CUDA_MAJOR} (12.2 to 12.6 run everywhere)",
            )
        else:
            self._step(f"found CUDA {facts.cuda}")

    def _check_python(self, made: str) -> PythonFacts:
        with self._blaming_image():
            python = python_facts(self._client, made)
        shown = ".".join(str(part) for part in python.version)
        if python.version[:2] < MIN_PYTHON:
            raise self._refused(
                "python_too_old",
                f"the image's {python.command} is Python {shown}; 3.10 or later is needed",
                "start from another base, or use Image.with_python()",
            )
        if not python.has_pip:
            raise self._refused(
                "no_pip",
                f"the image's {python.command} ({python.executable}) has no pip",
                "install it, e.g. Image.run_command('python -m ensurepip')",
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
        text = layer_dockerfile(made, python.executable, wheel.name, self._builder.label)
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
            build = Build(self._client, asked, self._say)
            with self._builder.cuttable(build):
                try:
                    return build.run()
                except BuildCancelled as error:
                    raise BuildStopped from error

    def _keep(self, final: str) -> Artefact:
        """Name the image, and push it or save it among the blobs."""
        try:
            facts = image_facts(self._client, final)
            self._check_size(facts)
            with explained("name an image"):
                repository, _, tag = name_of(self._image).partition(":")
                self._client.api.tag(final, repository, tag)
        except BaseException:
            self._discard(final)
            raise
        registry = self._builder.registry
        return self._save(final) if registry is None else self._push(registry, final)

    def _push(self, registry: Registry, final: str) -> Artefact:
        self._step("pushing the image for miners")
        try:
            reference = registry.keep(
                self._client,
                self._image.image_id,
                final,
                lambda line: self._say("stdout", line),
                self._keeps_on,
            )
        except Unavailable as error:
            if self._keeps_on():
                raise
            raise BuildStopped from error
        self._step(f"pushed {final} as {reference.rpartition('@')[2]}")
        return Artefact(final, registry_ref=reference)

    def _save(self, final: str) -> Artefact:
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
            raise self._refused(error.code, error.message, error.hint) from error

    def _discard(self, made: str) -> None:
        """Remove an image that nothing names."""
        with contextlib.suppress(ChutesError):
            if not image_facts(self._client, made).names:
                archive.remove(self._client, made)

    def _step(self, text: str) -> None:
        self._say("stdout", f"== {text}")

    def _say(self, stream: Stream, line: str) -> None:
        self._last.append(line[:MAX_TAIL_LINE])
        self._log(stream, line)

    def _refused(self, code: str, message: str, hint: str) -> BuildFailed:
        """Return the end of a build as its developer reads it: cause, fix, last lines."""
        fix = f" ({hint})" if hint else ""
        tail = "\nlast lines:\n" + "\n".join(self._last) if self._last else ""
        return BuildFailed(f"{message}{fix}{tail}"[:MAX_STATUS], code=code, hint=hint)


def name_of(image: Image) -> str:
    """Return the name under which the engine keeps a built image."""
    return f"{REPOSITORY}:{image.image_id}"


def id_of(name: str) -> str:
    """Return the image id in a name that `name_of` gave."""
    return name.rpartition(":")[2]
