"""Tests against a real Docker engine; skipped, with the reason, where none answers.

`scripts/ci_engine.sh start` starts one by hand. The small bases of these tests are made once in a
session from the CPU base image, which images/build_cpu_base.sh makes where it is missing.
"""

import dataclasses
import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from chutes_core.base import ids
from chutes_core.base.errors import Unavailable
from chutes_core.engine.connect import connect
from chutes_core.validator.catalog.builder import DockerBuildLimits
from chutes_core.validator.catalog.bundle import packed
from chutes_core.validator.catalog.docker_builder import DockerBuilder, Guard
from chutes_core.validator.domain.images import Image
from chutes_core.validator.store.blobs import Blobs

ROOT = Path(__file__).resolve().parents[3]
BASE = "parachutes/python:3.12"
OWNER = "tests"


def _no_engine():
    try:
        connect(None).close()
    except Unavailable as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items):
    """Mark every test of this folder, and skip it where no engine answers."""
    mine = [item for item in items if "tests/docker/builds" in str(item.path)]
    reason = _no_engine() if mine else None
    for item in mine:
        item.add_marker(pytest.mark.docker)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=f"no Docker engine: {reason}"))


@pytest.fixture(scope="session")
def engine():
    """A client of the engine."""
    client = connect(None)
    yield client
    client.close()


@pytest.fixture(scope="session")
def base(engine):
    """The CPU base image's name."""
    if not engine.api.images(name=BASE):
        script = str(ROOT / "images" / "build_cpu_base.sh")
        done = subprocess.run([script], capture_output=True, text=True, timeout=400, check=False)
        if done.returncode != 0:
            pytest.skip(f"the base image cannot be made: {done.stderr[-300:]}")
    return BASE


class Bench:
    """A builder with blobs of its own, and what it was given."""

    def __init__(self, folder, engine):
        self.folder = folder
        self.engine = engine
        self.blobs = Blobs(folder / "blobs")
        self.lines = []
        self.made = []

    def builder(self, **limits):
        guard = Guard(OWNER, required=True)
        limits = {"min_free_bytes": 0, "time_s": 240.0, **limits}
        return DockerBuilder(self.blobs, self.connect, guard, DockerBuildLimits(**limits))

    def image(self, name, dockerfile, files=()):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for path, content in dict(files).items():
                archive.writestr(path, content)
        with packed(dockerfile, data.getvalue()) as chunks:
            blob = self.blobs.put(chunks, limit_bytes=1 << 30)
        image = Image(
            image_id=ids.image_id("tests", name, "1"),
            user_id="tests",
            username="tests",
            name=name,
            tag="1",
            readme="",
            public=False,
            dockerfile=dockerfile,
            bundle_sha256=blob.sha256,
            bundle_bytes=blob.size_bytes,
            state="building",
            error="",
            created_at_s=0,
        )
        self.made.append(image)
        return image

    def connect(self):
        """Return a client of the engine, as a builder wants one."""
        return connect(None)

    def built(self, image, made):
        """Return the image as the catalogue keeps it once it is built."""
        return dataclasses.replace(
            image,
            state="built",
            image_digest=made.image_digest,
            archive_sha256=made.archive_sha256,
            archive_bytes=made.archive_bytes,
            registry_ref=made.registry_ref,
        )

    def log(self, _, text):
        self.lines.append(text)

    @property
    def text(self):
        return "\n".join(self.lines)

    def containers(self):
        return [one["Id"] for one in self.engine.api.containers(all=True)]


@pytest.fixture
def bench(tmp_path, engine):
    """A builder's bench; what it built is removed from the engine afterwards."""
    bench = Bench(tmp_path, engine)
    yield bench
    builder = bench.builder()
    for image in bench.made:
        builder.forget(image)
