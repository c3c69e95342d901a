"""kill -9 of dockerd under a running instance: reported, taken back, nothing orphaned."""

import asyncio
import gc
import shutil
import uuid

import pytest
from loguru import logger

from chutes_core.base.errors import ChutesError
from chutes_core.engine.connect import connect
from chutes_core.engine.networks import ensure_networks
from chutes_core.engine.run import PYTHON_LABEL
from chutes_core.miner.runtime.base import InstanceSpec, PreparedImage
from chutes_core.miner.runtime.docker import DockerRuntime, InstanceLimits
from scripts.localnet import wait_until
from scripts.runtimes import BASE_IMAGE, ensure_base_image
from tests.docker.engines import OwnEngine, processes
from tests.e2e.patience import PATIENCE_S

MIB = 1 << 20
pytestmark = [
    pytest.mark.timeout(240),
    # The SDK forgets a socket whose connection is refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="no dockerd is installed here"),
]


class StandingWalls:
    """Walls of another network namespace, which this process cannot reach; others test them."""

    def __init__(self, networks):
        self.networks = networks

    def mend(self):
        """Find nothing missing."""
        return False

    def keep(self):
        """Do nothing."""

    def take_down(self):
        """Do nothing."""


@pytest.fixture(params=[(), ("--live-restore",)], ids=["plain", "live restore"])
def engine(request):
    """An engine of the test's own with the base image in it."""
    ensure_base_image()
    engine = OwnEngine(*request.param)
    try:
        engine.start().close()
        engine.take_base()
        yield engine
    finally:
        engine.remove()
        gc.collect()  # here, where that warning is expected


@pytest.fixture
def reported():
    """Codes and texts that the miner logged."""
    records = []
    sink = logger.add(lambda message: records.append(message.record), level="INFO")
    yield lambda: [record["extra"].get("code") or record["message"] for record in records]
    logger.remove(sink)


def sleeper(client, name):
    """Make an image whose interpreter, whatever it is told, sleeps; return its id."""
    made = client.api.create_container(
        BASE_IMAGE,
        [
            "sh",
            "-c",
            f'printf "#!/bin/sh\\nwhile :; do sleep 1; done\\n" >{name}; chmod 755 {name}',
        ],
    )
    client.api.start(made["Id"])
    assert client.api.wait(made["Id"])["StatusCode"] == 0
    image = client.api.commit(made["Id"], changes=[f"LABEL {PYTHON_LABEL}={name}"])
    client.api.remove_container(made["Id"], v=True)
    return image["Id"]


def runtime_on(client):
    limits = InstanceLimits(128 * MIB, 1.0, 16 * MIB, 16 * MIB, 96)
    walls = StandingWalls(ensure_networks(client, "5Owner"))
    return DockerRuntime(client, "5Owner", walls=walls, limits=limits)


async def test_a_killed_engine_is_reported_and_nothing_is_orphaned(engine, reported):
    """While it is away nothing counts as ended; afterwards the engine's word counts."""
    client = connect(engine.host)
    name = f"/sleeper-{uuid.uuid4()}"
    image = PreparedImage("image", "0" * 64, sleeper(client, name))
    runtime = runtime_on(client)
    launch = str(uuid.uuid4())
    await runtime.start(InstanceSpec(launch, image))
    await runtime.refresh()
    assert runtime.ended(launch) is None
    wait_until(lambda: bool(processes(name)), PATIENCE_S, "it to have become its program")

    engine.kill()
    await runtime.refresh()
    assert "engine_unreachable" in reported()
    assert runtime.ended(launch) is None
    assert runtime.instances() == (launch,)
    with pytest.raises(ChutesError) as refused:
        await runtime.start(InstanceSpec(str(uuid.uuid4()), image))
    assert refused.value.code == "engine_unreachable"
    assert refused.value.hint

    engine.start().close()
    await runtime.refresh()
    assert "Docker engine answers again" in reported()
    # Without live restore the engine ends what it finds running; with it the instance goes on.
    assert (runtime.ended(launch) is None) == bool(processes(name)) == engine.restores
    await runtime.stop(launch, 1.0)
    assert client.api.containers(all=True) == []
    assert processes(name) == []

    again = str(uuid.uuid4())
    await runtime.start(InstanceSpec(again, image))
    await runtime.refresh()
    assert runtime.ended(again) is None
    await runtime.stop(again, 1.0)
    client.close()


async def test_a_stop_waits_for_a_killed_engine(engine):
    """An instance that has to go while the engine is away goes once it is back."""
    client = connect(engine.host)
    name = f"/sleeper-{uuid.uuid4()}"
    image = PreparedImage("image", "0" * 64, sleeper(client, name))
    runtime = runtime_on(client)
    launch = str(uuid.uuid4())
    await runtime.start(InstanceSpec(launch, image))
    engine.kill()
    stopping = asyncio.ensure_future(runtime.stop(launch, 1.0))
    await asyncio.sleep(1.5)
    assert not stopping.done()
    await asyncio.to_thread(engine.start)
    await asyncio.wait_for(stopping, PATIENCE_S)
    assert client.api.containers(all=True) == []
    assert processes(name) == []
    assert runtime.instances() == ()
    client.close()
