"""How far an image is: what the status, the log and the metrics say while it comes."""

import asyncio
import hashlib

import pytest
from aiohttp import web
from loguru import logger

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import ChutesError
from chutes_core.engine.pull import LayerBytes
from chutes_core.miner.archives import Archives
from chutes_core.miner.metrics import _pulls
from chutes_core.miner.operate import _rest
from chutes_core.miner.pulls import TELL_S, Pulls
from chutes_core.miner.status import NodeStatus, pull_reports
from chutes_core.wire.control import ImageRef

IMAGE = "0b4deb3d-0ead-507e-8786-df31b4a8999b"


@pytest.fixture
def told():
    """What the log was told: (message, facts)."""
    lines = []
    sink = logger.add(lambda message: lines.append(message.record), level="INFO")
    yield lambda: [(line["message"], line["extra"]) for line in lines]
    logger.remove(sink)


def test_the_log_is_told_of_begin_end_and_now_and_then_between(told):
    """However many pieces come."""
    clock = ManualClock()
    pulls = Pulls(clock)
    with pulls.fetching(IMAGE, "me/echo:1", "archive", total_bytes=1000, had_bytes=100) as pull:
        for got in range(110, 500, 10):
            clock.advance(TELL_S / 10)
            pulls.moved(pull, got)
        assert pulls.under_way() == (pull,)
        assert pull.percent == 49
    assert pulls.under_way() == ()
    messages = [message for message, _ in told()]
    assert messages[0] == "image transfer goes on where it broke off"
    assert messages[1:-1] == ["image transfer goes on"] * 3
    assert messages[-1] == "image transfer was finished"
    assert told()[1][1]["percent"] == 20
    assert told()[-1][1]["moved"] == 390


def test_what_breaks_off_is_shown_no_more(told):
    """And the log says how far it was."""
    pulls = Pulls(ManualClock())

    def fetch():
        with pulls.fetching(IMAGE, "me/echo:1", "registry") as pull:
            pulls.moved(pull, 7, 70)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fetch()
    assert pulls.under_way() == ()
    assert told()[-1] == (
        "image transfer broke off",
        {"image": "me/echo:1", "source": "registry", "bytes": None, "got": 7},
    )


def test_an_engines_layers_are_added_up():
    """As an engine tells of a pull; a layer that is here already counts for nothing."""
    layers = LayerBytes()
    steps = [
        ({"status": "Pulling from me/echo", "id": "sha256:1"}, None),
        ({"status": "Already exists", "progressDetail": {}, "id": "a"}, None),
        ({"status": "Pulling fs layer", "progressDetail": {}, "id": "b"}, None),
        (
            {"status": "Downloading", "progressDetail": {"current": 30, "total": 100}, "id": "b"},
            (30, 100),
        ),
        (
            {"status": "Downloading", "progressDetail": {"current": 5, "total": 50}, "id": "c"},
            (35, 150),
        ),
        ({"status": "Verifying Checksum", "progressDetail": {}, "id": "b"}, (105, 150)),
        (
            {"status": "Extracting", "progressDetail": {"current": 1, "total": 100}, "id": "b"},
            (105, 150),
        ),
        ({"status": "Pull complete", "progressDetail": {}, "id": "c"}, (150, 150)),
        ({"status": "Downloading", "progressDetail": {"current": "x"}, "id": "d"}, (150, 150)),
        ({"status": "Digest: sha256:1"}, None),
    ]
    for message, sums in steps:
        assert layers.take(message) == (sums is not None)
        if sums is not None:
            assert (layers.got, layers.total) == sums


def test_status_and_metrics_show_what_is_fetched():
    """With what was here before it was taken up again."""
    pulls = Pulls(ManualClock())
    with pulls.fetching(IMAGE, "me/echo:1", "archive", total_bytes=200, had_bytes=50) as pull:
        pulls.moved(pull, 100)
        with pulls.fetching(IMAGE, "me/other:2", "registry"):
            status = NodeStatus.model_construct(
                pulls=pull_reports(pulls.under_way()), launches=(), waiting=(), validators=(),
                walls_tried={}, ended_lately=(),
            )  # fmt: skip
    assert list(_rest(status)) == [
        "  fetches me/echo:1 (archive): 100 of 200 bytes, 50 %, went on from 50",
        "  fetches me/other:2 (registry): 0 of unknown bytes, 0 %",
    ]
    samples = {
        (sample.name, sample.labels["image"]): sample.value
        for family in _pulls(status)
        for sample in family.samples
    }
    assert samples["chutes_miner_pull_got_bytes", "me/echo:1"] == 100
    assert samples["chutes_miner_pull_total_bytes", "me/echo:1"] == 200
    assert samples["chutes_miner_pull_total_bytes", "me/other:2"] == 0


async def test_an_archive_that_broke_off_shows_from_where_it_went_on(tmp_path):
    """Half of it comes, the transfer is given up, and a next one goes on there."""
    data = bytes(range(256)) * 4096
    half, seen, starts = len(data) // 2, [], []

    async def serve(request):
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        starts.append(start)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        await response.prepare(request)
        if not start:
            await response.write(data[:half])
            while not seen:  # noqa: ASYNC110 # until the miner's side has some of it
                await asyncio.sleep(0.001)
            request.transport.abort()
            return response
        await response.write(data[start:])
        return response

    class Shown(Pulls):
        def moved(self, pull, got_bytes, total_bytes=None):
            super().moved(pull, got_bytes, total_bytes)
            seen.append((pull.had_bytes, pull.got_bytes, pull.total_bytes))

    app = web.Application()
    app.router.add_get("/launches/1/image", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    ref = ImageRef(
        image_id=IMAGE,
        name="me/echo:1",
        kind="docker",
        path="/launches/1/image",
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        token="token",
    )
    archives = Archives(tmp_path / "archives", tries=1, pause_s=0, pulls=Shown())
    try:
        with pytest.raises(ChutesError):
            await archives.fetch(url, ref)
        had = seen[-1][1]
        assert 0 < had <= half
        assert seen[0][0] == 0
        path = await archives.fetch(url, ref)
    finally:
        await runner.cleanup()
    assert path.read_bytes() == data
    assert starts == [0, had]
    assert seen[-1] == (had, len(data), len(data))
