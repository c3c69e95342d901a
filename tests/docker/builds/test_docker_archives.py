"""An image's way to a miner: saved, fetched with a break in between, loaded into an engine."""

import asyncio
import hashlib

import pytest
from aiohttp import web

from chutes_core.base.errors import ProtocolError
from chutes_core.engine import archive
from chutes_core.miner.archives import Archives
from chutes_core.wire.control import ImageRef

TOKEN = "t" * 64


@pytest.fixture
def built(bench, base):
    """A built image and the file of its archive."""
    image = bench.image("transfer", f"FROM {base}\nENV TRANSFER=1")
    made = bench.builder().build(image, bench.log)
    return image, made, bench.blobs.path(made.archive_sha256)


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


def test_an_archive_of_another_image_is_refused_and_removed(bench, built):
    """What was loaded in its stead does not stay in the engine."""
    image, made, path = built
    bench.builder().forget(image)
    with pytest.raises(ProtocolError) as refused:
        archive.load(bench.engine, path, image_digest="sha256:" + "0" * 64)
    assert refused.value.code == "image_mismatch"
    assert not archive.holds(bench.engine, made.image_digest)


def test_a_file_that_is_no_archive_is_refused(engine, tmp_path):
    """The engine's own words are in the message."""
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no tar at all" * 100)
    with pytest.raises(ProtocolError):
        archive.load(engine, broken, image_digest="sha256:" + "0" * 64)


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
