"""A validator's own share of an image's build, for lack of an engine: what its threads really do.

The engine's work runs in other processes anyway. Here a thread makes the context's tar from the
uploaded bundle, takes LINES lines of output through the same parser and into the store as they
would come from an engine, and puts an archive of ARCHIVE_BYTES among the blobs, hashing it on the
way. Only the HTTP between validator and engine is missing.
"""

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chutes_core.engine.build import Build, BuildLimits, BuildRequest
from chutes_core.validator.catalog.builder import Artefact, BuildStopped, Holds, Log
from chutes_core.validator.catalog.context import DOCKERFILE, tar_of_bundle
from chutes_core.validator.domain.images import Image
from chutes_core.validator.store.blobs import Blobs
from chutes_core.validator.wiring import services

LINES = int(os.environ.get("BENCH_BUILD_LINES", "2000"))
LINE_S = 0.005
ARCHIVE_BYTES = int(os.environ.get("BENCH_ARCHIVE_BYTES", str(256 * 1024 * 1024)))
_CHUNK = os.urandom(2 * 1024 * 1024)
_LIMITS = BuildLimits(600.0, 10**9, 10**6, 0, 1.0, 0)


class StandInBuilder:
    """Builds as a docker builder does, but for the engine."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._closing = threading.Event()

    def build(self, image: Image, log: Log) -> Artefact:
        """Take every step that is the validator's."""
        with tempfile.TemporaryDirectory() as work:
            context = Path(work, "context.tar")
            tar_of_bundle(self._blobs.path(image.bundle_sha256), context)
            build = Build(None, BuildRequest(context, DOCKERFILE, "none", _LIMITS), log)
            for number in range(LINES):
                build._take({"stream": f"Step {number}: Downloading part of something large\n"})
                if self._closing.wait(LINE_S):
                    raise BuildStopped
        blob = self._blobs.put(self._archive(), limit_bytes=2 * ARCHIVE_BYTES)
        return Artefact("sha256:" + "0" * 64, blob.sha256, blob.size_bytes)

    def forget(self, image: Image) -> None:
        """Nothing is left outside of the store."""

    def sweep(self, holds: Holds) -> int:
        """Nothing is left outside of the store."""
        del holds
        return 0

    def close(self) -> None:
        """Cut builds off."""
        self._closing.set()

    def _archive(self) -> Iterator[bytes]:
        for _ in range(ARCHIVE_BYTES // len(_CHUNK)):
            if self._closing.is_set():
                raise BuildStopped
            yield _CHUNK


def install() -> None:
    """Have the process runtime's validator build with it instead of not at all."""
    make = services._builder

    def builder(shared: Any, *more: Any) -> Any:
        if shared.settings.runtime == "process":
            return StandInBuilder(shared.store.blobs)
        return make(shared, *more)

    services._builder = builder
