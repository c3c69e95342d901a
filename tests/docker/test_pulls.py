"""A base image that cannot be pulled: the cause and the fix are said, and nothing is left behind.

The registry is the test's own, in the network namespace of an engine that may fill its disk.
"""

import gc
import io
import os
import shutil
import tarfile

import pytest

from chutes_core.base.errors import ChutesError
from chutes_core.engine import archive
from chutes_core.engine.connect import connect
from chutes_core.engine.pull import pull
from tests.docker.engines import OwnEngine
from tests.docker.registry import Registry, digest_of

MIB = 1 << 20
LAYER_BYTES = 4 * MIB
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="no dockerd is installed here"),
]


def layer(size):
    """Return a tar file with one file that does not compress."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = size
        tar.addfile(member, io.BytesIO(os.urandom(size)))
    return out.getvalue()


@pytest.fixture(scope="module")
def engine():
    """An engine with a disk of 32 MiB that tries a layer once."""
    engine = OwnEngine("--max-download-attempts", "1", disk_bytes=32 * MIB)
    try:
        engine.start().close()
        yield engine
    finally:
        engine.remove()
        gc.collect()


@pytest.fixture
def client(engine):
    client = connect(engine.host)
    yield client
    client.close()


@pytest.fixture
def registry(engine):
    """A registry that the engine reaches on its loopback, where plain HTTP is allowed."""
    with engine.entered():
        registry = Registry(layer(LAYER_BYTES))
        with registry.serving():
            yield registry


def pulled(client, name):
    """Pull; return what was refused, or None."""
    lines = []
    try:
        pull(client, name, lines.append, lambda: True)
    except ChutesError as error:
        return error
    return None


def cut_layer(registry):
    registry.cut.add(registry.layer)


def wrong_layer(registry):
    registry.blobs[registry.layer] = b"x" + registry.blobs[registry.layer][1:]


def other_layer(registry):
    """The layer is sound, but not the one that the configuration names."""
    other = Registry(layer(1000))
    digest, data = other.layer, other.blobs[other.layer]
    registry.manifest = registry.manifest.replace(registry.layer.encode(), digest.encode())
    registry.blobs[digest] = data


def no_layer(registry):
    del registry.blobs[registry.layer]


def no_manifest(registry):
    registry.manifest = None


@pytest.mark.parametrize(
    ("breaks", "code"),
    [
        (cut_layer, "image_pull_failed"),
        (wrong_layer, "image_pull_failed"),
        (other_layer, "image_pull_failed"),
        (no_layer, "image_pull_failed"),
        (no_manifest, "no_such_image"),
    ],
)
def test_a_broken_registry_is_named_and_leaves_nothing(client, registry, breaks, code):
    """Whatever breaks: a code, the engine's words, what to do; no image, no container."""
    breaks(registry)
    refused = pulled(client, registry.name)
    assert refused.code == code
    assert registry.name in refused.message
    assert refused.hint
    assert client.api.images(all=True) == []
    assert client.api.containers(all=True) == []


def test_a_registry_that_is_away_is_named(client, engine):
    """Nobody listens where the name leads."""
    with engine.entered():
        registry = Registry(b"")
        with registry.serving():
            pass
    refused = pulled(client, registry.name)
    assert refused.code == "image_pull_failed"
    assert "registry" in refused.hint


def test_a_full_disk_is_named_and_the_pull_goes_through_with_room(client, engine, registry):
    """The control is the same image, afterwards."""
    ballast = engine.data / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(engine.data).free - 2 * MIB)
    refused = pulled(client, registry.name)
    assert refused.code == "disk_full"
    assert "docker system df" in refused.hint
    assert client.api.images(all=True) == []
    ballast.unlink()
    assert pulled(client, registry.name) is None
    assert archive.holds(client, registry.config)
    assert digest_of(b"") != registry.config
    assert archive.remove(client, registry.name)
