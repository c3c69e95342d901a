"""Images through a real OCI registry instead of archives: pushed, pulled, refused, removed."""

import io
import os
import tarfile
import time
import uuid

import pytest
import requests

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.engine import archive, shelf
from chutes_core.engine.registry import Access
from chutes_core.miner.runtime.docker_images import IMAGE_TAG, EngineImages
from chutes_core.miner.runtime.registries import Registries
from chutes_core.validator.catalog.build_job import Job
from chutes_core.validator.catalog.docker_builder import DockerBuilder, Guard
from chutes_core.validator.catalog.layer import BUILDER_LABEL
from chutes_core.validator.catalog.registry import Place, Registry
from chutes_core.validator.catalog.registry_tokens import SERVICE, TOKEN_S, RegistryTokens
from chutes_core.validator.launches.transfers import pulled_ref
from chutes_core.wire.control import ImageRef
from tests.docker import oci_registry

ISSUER = "5FvalidatorHotkey"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Stage:
    """A validator's registry, and a miner's images, on one engine."""

    def __init__(self, engine, registry, tokens, host):
        self.engine = engine
        self.registry = registry
        self.tokens = tokens
        self.host = host
        self.miner = EngineImages(engine, 20, Registries(any_host=True))

    def small_image(self):
        """Make an image of one random file; return its id and the name that keeps it."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo("file")
            member.size = 100_000
            tar.addfile(member, io.BytesIO(os.urandom(member.size)))
        name = f"chutes-test-{uuid.uuid4()}"
        self.engine.api.import_image_from_data(out.getvalue(), name, "1")
        return self.engine.api.inspect_image(f"{name}:1")["Id"], f"{name}:1"

    def pushed(self):
        """Push a small image and take it from the engine; return what a grant would say."""
        digest, name = self.small_image()
        image_id = str(uuid.uuid4())
        try:
            reference = self.registry.keep(
                self.engine, image_id, digest, lambda _: None, lambda: True
            )
            assert self.names(digest) == [name]
        finally:
            archive.remove(self.engine, name)
        assert not archive.holds(self.engine, digest)
        return ImageRef(
            image_id=image_id,
            name="tests/small:1",
            kind="docker",
            path="",
            sha256=reference.rpartition(":")[2],
            size_bytes=0,
            image_digest=digest,
            registry_ref=reference,
        )

    def names(self, digest):
        found = self.engine.api.inspect_image(digest)
        return [*(found["RepoTags"] or ()), *(found["RepoDigests"] or ())]

    async def refused(self, ref, miner=None):
        with pytest.raises(ChutesError) as error:
            await (miner or self.miner).pull(ref)
        assert error.value.hint
        assert not archive.holds(self.engine, ref.image_digest)
        return error.value.code


@pytest.fixture
def stage(engine, tmp_path):
    """A registry that believes the validator's passes alone."""
    tokens = RegistryTokens.open(tmp_path, issuer=ISSUER, now_s=int(time.time()))
    auth = oci_registry.with_passes(tmp_path / "registry-token.crt", ISSUER, SERVICE)
    with oci_registry.registry(tmp_path / "registry", auth) as host:
        registry = Registry(Place.parse(f"{host}/chutes"), tokens, SystemClock())
        yield Stage(engine, registry, tokens, host)


async def test_a_built_image_is_pulled_by_its_digest(stage, bench, tmp_path):
    """Pushed in place of an archive; a miner's engine has the same image, under our name."""
    builder = DockerBuilder(
        bench.blobs, bench.connect, Guard("tests"), registry=stage.registry, label="tests-registry"
    )
    image = bench.image("pushed", "FROM scratch")
    blobs = bench.blobs.all()
    digest, name = stage.small_image()
    # The last of the build's steps, on an image that takes no minute to compress.
    made = Job(builder, bench.engine, "none", image, bench.log, tmp_path)._keep(digest)
    assert "== pushing the image for miners" in bench.text
    assert (made.image_digest, made.archive_sha256) == (digest, "")
    assert bench.blobs.all() == blobs
    builder.forget(image)
    archive.remove(bench.engine, name)
    assert not archive.holds(bench.engine, digest)
    ref = pulled_ref(bench.built(image, made), stage.registry, "5FminerHotkey")
    prepared = await stage.miner.pull(ref)
    try:
        assert prepared.image_digest == digest
        assert await stage.miner.known(ref) == prepared
        assert stage.names(digest) == [f"{IMAGE_TAG}:{image.image_id}"]
    finally:
        shelf.take_away(bench.engine, f"{IMAGE_TAG}:{image.image_id}")
    assert not archive.holds(bench.engine, digest)


async def test_a_pass_opens_its_own_image_for_a_while(stage):
    """Another image's, one that has ended, and a forged one are refused; the granted one is not."""
    ref = stage.pushed()
    path, now_s = f"chutes/{ref.image_id}", int(time.time())
    others = (
        stage.tokens.mint("chutes/other", ("pull",), subject="m", now_s=now_s),
        stage.tokens.mint(path, ("pull",), subject="m", now_s=now_s - 2 * TOKEN_S),
        "a.forged.pass",
    )
    for other in others:
        assert await stage.refused(ref.model_copy(update={"token": other})) == "image_pull_denied"
    token = stage.registry.pull_token(ref.registry_ref, "m")
    prepared = await stage.miner.pull(ref.model_copy(update={"token": token}))
    assert prepared.image_digest == ref.image_digest
    shelf.take_away(stage.engine, f"{IMAGE_TAG}:{ref.image_id}")


async def test_a_private_registry_has_to_be_named_by_the_miner(stage):
    """A validator alone cannot lead a miner's engine to an address of the miner's network."""
    ref = stage.pushed()
    ref = ref.model_copy(update={"token": stage.registry.pull_token(ref.registry_ref, "m")})
    wary = EngineImages(stage.engine, 20, Registries())
    assert await stage.refused(ref, wary) == "registry_not_allowed"
    named = EngineImages(stage.engine, 20, Registries(stage.host))
    assert (await named.pull(ref)).image_digest == ref.image_digest
    shelf.take_away(stage.engine, f"{IMAGE_TAG}:{ref.image_id}")


def test_a_deleted_image_leaves_the_registry(stage):
    """Its manifest is gone; to remove it once more is no error; a registry that is away is one."""
    ref = stage.pushed()
    repository, _, digest = ref.registry_ref.partition("@")
    token = stage.registry.pull_token(ref.registry_ref, "m")

    def status():
        path = repository.partition("/")[2]
        headers = {"Authorization": f"Bearer {token}", "Accept": MANIFEST}
        address = f"http://{stage.host}/v2/{path}/manifests/{digest}"
        return requests.get(address, headers=headers, timeout=60).status_code

    assert status() == 200
    assert stage.registry.drop(ref.registry_ref)
    assert status() == 404
    assert stage.registry.drop(ref.registry_ref)
    away = Registry(Place.parse("127.0.0.1:1/chutes"), stage.tokens, SystemClock())
    with pytest.raises(Unavailable, match="registry_unreachable"):
        away.drop(f"127.0.0.1:1/chutes/x@{digest}")


async def test_a_registry_with_passwords_serves_both_sides(engine, tmp_path):
    """The validator pushes with its user, a miner pulls with its own; no pass is granted."""
    folder = tmp_path / "registry"
    folder.mkdir()
    auth = oci_registry.with_password(folder)
    with oci_registry.registry(folder / "served", auth) as host:
        tokens = RegistryTokens.open(tmp_path, issuer=ISSUER, now_s=int(time.time()))
        user, password = oci_registry.USER, oci_registry.PASSWORD
        registry = Registry(Place.parse(host), tokens, SystemClock(), user=user, password=password)
        stage = Stage(engine, registry, tokens, host)
        ref = stage.pushed()
        assert registry.pull_token(ref.registry_ref, "m") == ""
        wrong = Registries(host, Access(user=user, password="wrong"))
        for refused in (wrong, Registries(host)):
            miner = EngineImages(engine, 20, refused)
            assert await stage.refused(ref, miner) == "image_pull_denied"
        miner = EngineImages(engine, 20, Registries(host, Access(user=user, password=password)))
        assert (await miner.pull(ref)).image_digest == ref.image_digest
        shelf.take_away(engine, f"{IMAGE_TAG}:{ref.image_id}")
        assert registry.drop(ref.registry_ref)


def test_what_was_deleted_while_the_engine_was_away_goes_later(engine, bench):
    """By its label: a named image without a record and one that lost its name; nobody else's."""
    label = f"tests-sweep-{uuid.uuid4()}"
    images = {}
    for name, value in (("kept", label), ("gone", label), ("foreign", "tests-other"), ("", label)):
        tag = str(uuid.uuid4())
        change = f"LABEL {BUILDER_LABEL}={value}"
        engine.api.import_image_from_data(b"\0" * 1024, "chutes-built", tag, changes=[change])
        images[name] = engine.api.inspect_image(f"chutes-built:{tag}")["Id"], tag
    lost = images[""][1]
    engine.api.import_image_from_data(
        b"\0" * 1024, "chutes-built", lost, changes=[f"LABEL again={label}"]
    )
    builder = DockerBuilder(bench.blobs, bench.connect, Guard("tests"), label=label)
    try:
        assert builder.sweep(lambda image_id: image_id in (images["kept"][1], lost)) == 2
        held = {name: archive.holds(engine, digest) for name, (digest, _) in images.items()}
        assert held == {"kept": True, "gone": False, "foreign": True, "": False}
        assert builder.sweep(lambda image_id: image_id == images["kept"][1]) == 0
    finally:
        for _, tag in images.values():
            archive.remove(engine, f"chutes-built:{tag}")
