"""An engine whose disk is really full: each step says so and what to do, and leaves nothing."""

import gc
import os
import shutil
import subprocess
import uuid

import pytest

from chutes_core.base.errors import ChutesError
from chutes_core.engine import archive
from chutes_core.engine.connect import connect
from chutes_core.engine.firewall import Firewall
from chutes_core.engine.networks import ensure_networks
from chutes_core.engine.run import Containers
from chutes_core.validator.catalog.builder import BuildFailed, DockerBuildLimits
from chutes_core.validator.catalog.docker_builder import DockerBuilder, Guard
from scripts.runtimes import BASE_IMAGE, ensure_base_image
from tests.docker.builds.conftest import Bench
from tests.docker.engines import OwnEngine
from tests.docker.test_start_failures import MIB, spec_of

DISK_BYTES = 1024 * MIB
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="no dockerd is installed here"),
]


class Disk:
    """The engine's file system, filled up to some free bytes by one file."""

    def __init__(self, folder):
        self._folder = folder
        self._ballast = folder / "ballast"

    def leave(self, free_bytes):
        """Leave so much free."""
        self._ballast.unlink(missing_ok=True)
        size = shutil.disk_usage(self._folder).free - free_bytes
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    @property
    def free(self):
        """Return how much is free."""
        return shutil.disk_usage(self._folder).free


@pytest.fixture(scope="module")
def engine():
    """An engine with a small file system of its own and the base image on it."""
    ensure_base_image()
    engine = OwnEngine(disk_bytes=DISK_BYTES)
    try:
        engine.start().close()
        engine.take_base()
        yield engine
    finally:
        engine.remove()
        gc.collect()


@pytest.fixture
def client(engine):
    """A client of it; whatever a test did, no container stays."""
    client = connect(engine.host)
    yield client
    left = client.api.containers(all=True)
    client.close()
    (engine.data / "ballast").unlink(missing_ok=True)
    assert left == []


@pytest.fixture
def disk(engine, client):
    """Its disk."""
    return Disk(engine.data)


def images_of(client):
    return {one["Id"] for one in client.api.images(all=True)}


def refusal(error):
    assert error.code == "disk_full"
    assert "the disk of the Docker engine is full" in error.message
    assert "docker image prune" in error.hint


def test_an_image_that_finds_no_room_is_not_half_loaded(engine, client, disk, tmp_path):
    """The miner's step: the archive does not fit, and what it took is given back."""
    made = client.api.create_container(
        BASE_IMAGE, ["sh", "-c", "head -c 60000000 /dev/urandom >/x"]
    )
    client.api.start(made["Id"])
    client.api.wait(made["Id"])
    digest = client.api.commit(made["Id"])["Id"]
    client.api.remove_container(made["Id"])
    file = tmp_path / "image.tar"
    with file.open("wb") as out:
        out.writelines(archive.save(client, digest))
    assert archive.remove(client, digest)
    before = images_of(client)
    disk.leave(40 * MIB)
    free = disk.free
    with pytest.raises(ChutesError) as refused:
        archive.load(client, file, image_digest=digest, tag="chutes-image:x")
    refusal(refused.value)
    assert images_of(client) == before
    assert disk.free > free - 8 * MIB
    disk.leave(512 * MIB)  # the control: with room it is loaded
    archive.load(client, file, image_digest=digest)
    assert archive.remove(client, digest)


def test_a_container_that_finds_no_room_is_not_left_behind(client, disk):
    """The miner's last step: nothing can be created; with room again it starts."""
    owner = f"test-{uuid.uuid4()}"
    networks = ensure_networks(client, owner)
    containers = Containers(client, owner)
    place = (containers, networks, owner)
    disk.leave(0)
    with pytest.raises(ChutesError) as refused:
        containers.start(spec_of(place))
    refusal(refused.value)
    assert containers.all() == ()
    disk.leave(64 * MIB)
    spec = spec_of(place)
    containers.start(spec)
    containers.remove(containers.find(spec.launch_id).container_id)


def test_a_build_that_fills_the_disk_says_so(engine, client, disk, tmp_path):
    """The validator's step: the image's owner reads what is full, and nothing unnamed stays."""

    def inside(words):
        return subprocess.run(
            [*engine.nsenter(), *words], capture_output=True, text=True, timeout=120, check=False
        )

    bench = Bench(tmp_path, client)
    builder = DockerBuilder(
        bench.blobs,
        lambda: connect(engine.host),
        Guard("tests"),
        DockerBuildLimits(min_free_bytes=0, time_s=300.0),
        Firewall(inside),
    )
    before = images_of(client)
    image = bench.image("filling", f"FROM {BASE_IMAGE}\nRUN head -c 200000000 /dev/zero >/x")
    disk.leave(48 * MIB)
    with pytest.raises(BuildFailed) as failed:
        builder.build(image, bench.log)
    assert "No space left on device" in str(failed.value)
    assert "the disk of the Docker engine is full" in str(failed.value)
    assert "docker system df" in str(failed.value)
    assert images_of(client) == before
