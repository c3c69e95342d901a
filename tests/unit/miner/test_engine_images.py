"""Which image a grant means: what an engine checked decides, never a validator's word."""

import pytest

from chutes_core.miner.runtime import docker_images
from chutes_core.miner.runtime.docker_images import EngineImages
from chutes_core.miner.runtime.registries import Registries
from chutes_core.wire.control import ImageRef

MINE, THEIRS = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def images(monkeypatch):
    """An engine that has both images and pulls `THEIRS`, whatever it is asked for."""
    monkeypatch.setattr(docker_images.archive, "holds", lambda client, digest: True)
    monkeypatch.setattr(docker_images.shelf, "put", lambda *names: None)
    monkeypatch.setattr(docker_images.registry, "pull_exactly", lambda *facts: THEIRS)
    return EngineImages(None, 20, Registries())


def ref(registry_ref=""):
    return ImageRef(
        image_id="0b4deb3d-0ead-507e-8786-df31b4a8999b",
        name="bob/app:1",
        kind="docker",
        path="",
        sha256="c" * 64,
        size_bytes=0,
        image_digest=MINE,
        registry_ref=registry_ref,
    )


async def test_what_one_validator_has_pulled_under_anothers_digest_is_not_the_others_image(images):
    """A pull shows that a registry's digest was kept, not that the image is what it claims."""
    pulled = ref(f"r.example.com/x@sha256:{'d' * 64}")
    assert (await images.pull(pulled)).image_digest == THEIRS
    assert (await images.known(pulled)).image_digest == THEIRS
    assert (await images.known(ref())).image_digest == MINE
    other = ref(f"r.example.com/x@sha256:{'e' * 64}")
    assert (await images.known(other)).image_digest == MINE
