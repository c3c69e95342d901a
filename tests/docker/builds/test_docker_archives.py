"""An image's way to a miner: saved, fetched with a break in between, loaded into an engine."""

import asyncio
import hashlib
import io
import json
import tarfile

import pytest
from aiohttp import web

from chutes_core.base.errors import ProtocolError
from chutes_core.engine import archive
from chutes_core.miner.archives import Archives
from chutes_core.wire.control import ImageRef
from tests.docker.builds.conftest import Bench

TOKEN = "t" * 64
BASE = "parachutes/python:3.12"  # a name that every host of these tests uses


@pytest.fixture(scope="module")
def built(tmp_path_factory, engine, base):
    """A built image and the file of its archive; the engine may have lost it."""
    bench = Bench(tmp_path_factory.mktemp("built"), engine)
    image = bench.image("transfer", f"FROM {base}\nENV TRANSFER=1")
    made = bench.builder().build(image, bench.log)
    yield image, made, bench.blobs.path(made.archive_sha256)
    bench.builder().forget(image)


def test_an_archive_brings_the_same_image_into_an_engine_without_it(bench, built):
    """After the removal of every trace, loading gives the digest that was granted."""
    image, made, path = built
    bench.builder().forget(image)
    assert not archive.holds(bench.engine, made.image_digest)
    name = "chutes-test-loaded:1"
    try:
        loaded = archive.load(bench.engine, path, image_digest=made.image_digest, tag=name)
        assert loaded == made.image_digest
        assert archive.holds(bench.engine, made.image_digest)
    finally:
        assert archive.remove(bench.engine, name)
    assert not archive.holds(bench.engine, made.image_digest)
    assert not archive.remove(bench.engine, name)


def test_an_archive_of_another_image_is_refused(bench, built):
    """It is not even loaded."""
    image, made, path = built
    bench.builder().forget(image)
    with pytest.raises(ProtocolError) as refused:
        archive.load(bench.engine, path, image_digest="sha256:" + "0" * 64)
    assert refused.value.code == "image_mismatch"
    assert not archive.holds(bench.engine, made.image_digest)


def state_of(engine):
    """Names and what they point at, images without a name, containers."""
    images = engine.api.images(all=True)
    names = {(tag, one["Id"]) for one in images for tag in one["RepoTags"] or ()}
    return names, {one["Id"] for one in images}, {c["Id"] for c in engine.api.containers(all=True)}


def changed(path, into, change, more=()):
    """Copy an archive; ``change(name, data)`` gives a member's new content; ``more`` is added."""
    with tarfile.open(path) as old, tarfile.open(into, "w") as new:
        for member in old:
            file = old.extractfile(member) if member.isfile() else None
            data = change(member.name, file.read()) if file else b""
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
        for name, data in dict(more).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return into


def test_an_archive_cannot_point_a_name_elsewhere(bench, built, tmp_path):
    """The granted image under a name that the host uses already: refused, and nothing has moved."""
    image, made, path = built
    bench.builder().forget(image)

    def named(name, data):
        if name != "manifest.json":
            return data
        return json.dumps([{**json.loads(data)[0], "RepoTags": [BASE]}]).encode()

    bad = changed(path, tmp_path / "named.tar", named)
    (before,) = {one["Id"] for one in bench.engine.api.images(name=BASE)}
    with pytest.raises(ProtocolError) as refused:
        archive.load(bench.engine, bad, image_digest=made.image_digest)
    assert refused.value.code == "archive_names"
    assert BASE in refused.value.message
    assert refused.value.hint
    assert not archive.holds(bench.engine, made.image_digest)
    assert {one["Id"] for one in bench.engine.api.images(name=BASE)} == {before}


def test_a_corrupt_layer_leaves_nothing(bench, built, tmp_path):
    """The engine's own words and what to do are said; no image and no container stay."""
    image, made, path = built
    bench.builder().forget(image)
    last = []

    def garbled(name, data):
        return b"garbled" * 99 if name == last[0] else data

    with tarfile.open(path) as tar:
        last += json.load(tar.extractfile("manifest.json"))[0]["Layers"][-1:]
    bad = changed(path, tmp_path / "corrupt.tar", garbled)
    before = state_of(bench.engine)
    with pytest.raises(ProtocolError) as refused:
        archive.load(bench.engine, bad, image_digest=made.image_digest)
    assert refused.value.code == "bad_archive"
    assert "cannot load the archive" in refused.value.message
    assert refused.value.hint
    assert not archive.holds(bench.engine, made.image_digest)
    assert state_of(bench.engine) == before


def test_a_file_that_is_no_archive_is_refused(engine, tmp_path):
    """It never reaches the engine."""
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no tar at all" * 100)
    with pytest.raises(ProtocolError) as refused:
        archive.load(engine, broken, image_digest="sha256:" + "0" * 64)
    assert refused.value.code == "bad_archive"


async def test_a_broken_transfer_goes_on_where_it_ended(built, tmp_path):
    """Two breaks, three requests; each byte is sent once, and the file is the archive."""
    _, made, path = built
    data = await asyncio.to_thread(path.read_bytes)
    asked = []

    async def serve(request):
        assert request.headers["Authorization"] == f"Launch {TOKEN}"
        begin = request.http_range.start or 0
        asked.append(begin)
        response = web.StreamResponse(
            status=206 if begin else 200,
            headers={"Content-Length": str(len(data) - begin), "ETag": made.archive_sha256},
        )
        await response.prepare(request)
        end = len(data) if len(asked) == 3 else begin + 50_000_000
        await response.write(data[begin:end])
        if end < len(data):
            request.transport.close()
        return response

    app = web.Application()
    app.router.add_get("/launches/1/image", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    ref = ImageRef(
        image_id="0b4deb3d-0ead-507e-8786-df31b4a8999b",
        name="tests/transfer:1",
        kind="docker",
        path="/launches/1/image",
        sha256=made.archive_sha256,
        size_bytes=made.archive_bytes,
        image_digest=made.image_digest,
        token=TOKEN,
    )
    archives = Archives(tmp_path / "archives", pause_s=0.01)
    try:
        fetched = await archives.fetch(f"http://127.0.0.1:{port}", ref)
        assert len(asked) == 3
        assert asked == sorted(asked)
        assert asked[1] > 0
        assert hashlib.sha256(fetched.read_bytes()).hexdigest() == made.archive_sha256
        await archives.fetch(f"http://127.0.0.1:{port}", ref)
        assert len(asked) == 3
        archives.forget(ref.sha256)
        assert not fetched.exists()
    finally:
        await runner.cleanup()


def test_an_image_granted_by_its_manifest_is_loaded_under_this_engines_name(bench, built, tmp_path):
    """The validator's engine keeps images in containerd's store and calls them otherwise."""
    image, made, path = built
    bench.builder().forget(image)
    manifest = json.dumps({"schemaVersion": 2, "config": {"digest": made.image_digest}}).encode()
    granted = "sha256:" + hashlib.sha256(manifest).hexdigest()
    index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": granted}]}).encode()
    hexes = made.image_digest.removeprefix("sha256:")
    with tarfile.open(path) as tar:
        (config,) = [one for one in tar if one.name == f"{hexes}.json"]
        data = tar.extractfile(config).read()
    more = {f"blobs/{granted.replace(':', '/')}": manifest, "index.json": index}
    more[f"blobs/sha256/{hexes}"] = data
    oci = changed(path, tmp_path / "oci.tar", lambda name, data: data, more)
    try:
        loaded = archive.load(bench.engine, oci, image_digest=granted, tag="chutes-test-oci:1")
        assert loaded == made.image_digest
        assert archive.holds(bench.engine, loaded)
    finally:
        archive.remove(bench.engine, "chutes-test-oci:1")
