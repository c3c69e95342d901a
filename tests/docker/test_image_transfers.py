"""What becomes of a launch whose image does not arrive: cause, fix, and nothing left behind.

The miner's own steps (launcher, archives, docker runtime) on a real engine; the validator is the
test's, and misbehaves.
"""

import asyncio
import hashlib
import io
import json
import os
import tarfile
import uuid
from types import SimpleNamespace

import pytest
from aiohttp import web

from chutes_core.base.errors import ChutesError
from chutes_core.engine import archive
from chutes_core.engine.connect import connect
from chutes_core.engine.networks import ensure_networks, remove_networks
from chutes_core.engine.run import PYTHON_LABEL, Containers
from chutes_core.miner.archives import Archives
from chutes_core.miner.hostfacts import TransferMeter
from chutes_core.miner.hosting import ArchivedImages
from chutes_core.miner.launcher import Launcher
from chutes_core.miner.runtime.docker import DockerRuntime, InstanceLimits
from chutes_core.wire.control import ImageRef
from tests.docker.test_start_failures import MIB

GPU = "GPU-00000000-0000-0000-0000-000000000000"
LIMITS = InstanceLimits(128 * MIB, 1.0, 16 * MIB, 16 * MIB, 96)


def made_image(client, text):
    """Make an image with one file; return its digest and archive, and take it away again."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    name = f"chutes-test-{uuid.uuid4()}"
    changes = [f"LABEL {PYTHON_LABEL}=/no/python"]
    client.api.import_image_from_data(out.getvalue(), name, "1", changes=changes)
    digest = client.api.inspect_image(f"{name}:1")["Id"]
    data = b"".join(archive.save(client, digest))
    archive.remove(client, f"{name}:1")
    return digest, data


class Validator:
    """Serves one archive in a way of its own; ``asked`` holds where each request began."""

    def __init__(self, data):
        self.data = data
        self.asked = []
        self.hotkey = "5Validator"
        self.send = self.whole
        self.url = ""

    async def serve(self, request):
        self.asked.append(request.http_range.start or 0)
        return await self.send(request)

    async def whole(self, request, data=None, end=None):
        """Answer from where it was asked; hang up at ``end``."""
        data = data if data is not None else self.data
        begin = request.http_range.start or 0
        response = web.StreamResponse(status=206 if begin else 200)
        response.content_length = len(data) - begin
        await response.prepare(request)
        await response.write(data[begin:end])
        if end is not None:
            request.transport.close()
        return response


class Stage:
    """A miner's launcher on the engine, and what it was granted."""

    def __init__(self, client, owner, folder, digest, data):
        self.client = client
        self.containers = Containers(client, owner)
        self.folder = folder
        self.digest = digest
        self.validator = Validator(data)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.size = len(data)
        walls = SimpleNamespace(networks=ensure_networks(client, owner), mend=lambda: False)
        self.runtime = DockerRuntime(client, owner, walls=walls, limits=LIMITS)
        images = ArchivedImages(folder, TransferMeter())
        images._archives = Archives(folder, pause_s=0.01)
        gpu = SimpleNamespace(uuid=GPU, index=0, stand_in=False, gpu_class="h100_sxm")
        self._launcher = Launcher(
            node=SimpleNamespace(gpus=(gpu,)),
            runtime=self.runtime,
            api=None,
            images=images,
            graval_python="",
        )

    async def launch(self, *gpus):
        """Bring an instance up; return why that was refused."""
        ref = ImageRef(
            image_id=str(uuid.uuid4()),
            name="tests/transfer:1",
            kind="docker",
            path="/launches/1/image",
            sha256=self.sha256,
            size_bytes=self.size,
            image_digest=self.digest,
            token="t" * 64,
        )
        grant = SimpleNamespace(
            launch_id=str(uuid.uuid4()),
            chute_id="c",
            version="v",
            gpu_uuids=gpus,
            idle_gpu_uuids=(),
            image=ref,
            validator_public_key="00" * 32,
            listen_deadline_s=30,
            lease_renewal_s=30,
            allow_external_egress=False,
        )
        chute = SimpleNamespace(chute_id="c", version="v")
        action = SimpleNamespace(chute=chute, gpu_uuids=gpus, idle_gpus=())
        with pytest.raises(ChutesError) as refused:
            await self._launcher.bring_up(grant, action, self.validator)
        assert refused.value.message
        assert refused.value.hint, refused.value
        return refused.value

    def left(self):
        """Return what lies in the miner's folder."""
        return sorted(path.suffix for path in self.folder.iterdir())


@pytest.fixture
async def stage(tmp_path):
    client, owner = connect(None), f"test-{uuid.uuid4()}"
    digest, data = await asyncio.to_thread(made_image, client, os.urandom(2 * MIB))
    stage = Stage(client, owner, tmp_path / "archives", digest, data)
    app = web.Application()
    app.router.add_get("/launches/1/image", stage.validator.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stage.validator.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    yield stage
    await runner.cleanup()
    containers = stage.containers.all()
    held = archive.holds(client, digest)
    if held:
        archive.remove(client, digest)
    remove_networks(client, owner)
    client.close()
    assert containers == ()


@pytest.mark.parametrize("status", [401, 404])
async def test_a_token_that_is_over_ends_the_launch_and_says_so(stage, status):
    """The validator's own words are in the message; it is not asked again and again."""

    async def refuse(request):
        body = {"detail": "the token has expired", "code": "bad_launch_token"}
        return web.json_response(body, status=status)

    stage.validator.send = refuse
    error = await stage.launch()
    assert error.code == "image_refused"
    assert "the token has expired" in error.message
    assert stage.validator.asked == [0]
    assert stage.left() == []
    assert not archive.holds(stage.client, stage.digest)


async def test_an_archive_with_another_hash_never_reaches_the_engine(stage):
    """One byte is wrong: the whole file is thrown away."""
    wrong = bytearray(stage.validator.data)
    wrong[-1] ^= 1
    stage.validator.send = lambda request: stage.validator.whole(request, bytes(wrong))
    error = await stage.launch()
    assert error.code == "archive_mismatch"
    assert stage.left() == []
    assert not archive.holds(stage.client, stage.digest)


async def test_an_archive_of_another_image_is_thrown_away(stage):
    """The hash is the granted one, the image in it is not."""
    stage.digest = "sha256:" + "0" * 64
    error = await stage.launch()
    assert error.code == "image_mismatch"
    assert stage.left() == []


async def test_a_transfer_that_breaks_off_goes_on_at_the_next_launch(stage):
    """Half of it comes and no more: an error; the next launch asks for the other half alone."""
    half = len(stage.validator.data) // 2
    stage.validator.send = lambda request: stage.validator.whole(request, end=half)
    error = await stage.launch()
    assert error.code == "peer_unreachable"
    assert "broke off" in error.message
    assert stage.left() == [".part"]
    assert not archive.holds(stage.client, stage.digest)
    count = len(stage.validator.asked)
    stage.validator.send = stage.validator.whole
    after = await stage.launch()
    assert after.code == "instance_ended"  # the image arrived, and has no Python
    (launch_id,) = stage.runtime.instances()
    await stage.runtime.stop(launch_id, 1.0)
    (begin,) = stage.validator.asked[count:]
    assert 0 < begin <= half
    assert stage.left() == []
    assert archive.holds(stage.client, stage.digest)


async def test_a_validator_that_is_away_is_named(stage):
    """Nobody listens where the image should come from."""
    stage.validator.url = "http://127.0.0.1:1"
    error = await stage.launch()
    assert error.code == "peer_unreachable"
    assert not archive.holds(stage.client, stage.digest)


async def test_a_missing_gpu_runtime_names_the_cause_and_the_fix(stage):
    """The engine is asked for a device and has no runtime for it; it keeps no container."""
    error = await stage.launch(GPU)
    if error.code == "gpu_not_usable":
        pytest.skip("this engine has a GPU runtime")
    assert error.code == "gpu_runtime_missing"
    assert "no GPU runtime" in error.message
    assert json.dumps(error.hint).count("nvidia-ctk runtime configure") == 1
