"""A network on the Docker engine that DOCKER_HOST names; skipped, with the reason, without one."""

import os
import subprocess

import pytest

from chutes_core.engine import archive
from chutes_core.engine.connect import connect
from scripts.localnet import ROOT, Localnet
from scripts.runtimes import choose, ensure_base_image
from tests.e2e.patience import give_time


def pytest_collection_modifyitems(items):
    """Give each test time; skip where no engine answers or its firewall cannot be set."""
    mine = [item for item in items if "tests/docker" in str(item.path)]
    if not mine:
        return
    give_time(mine)
    choice = choose(None)
    for item in mine:
        item.add_marker(pytest.mark.docker)
        if choice.runtime != "docker":
            item.add_marker(pytest.mark.skip(reason=choice.reason))


@pytest.fixture(scope="module")
def docker_net(tmp_path_factory):
    """Chain, validator, two miners with small instances; images as archives by digest.

    Gone before another module's network starts: on one engine their miners, who have the same
    hotkeys, would take each other's containers for their own (docs/adr/0030).
    """
    os.environ["BITTENSOR_RUNTIME_CACHE_DIR"] = str(tmp_path_factory.mktemp("chain-cache"))
    ensure_base_image()
    folder = tmp_path_factory.mktemp("net")
    with Localnet(folder, block_seconds=0.5, tempo=40, runtime="docker") as net:
        net.validator = net.start_validator(1)
        net.miners = {}
        for number in (1, 2):
            net.register_miner(number)
            net.miners[number] = net.start_miner(number, extra=SMALL)
        yield net


@pytest.fixture(scope="session")
def bare_image():
    """The base image without the packages that the runner needs."""
    script = [str(ROOT / "images" / "build_cpu_base.sh"), "--bare", BARE]
    done = subprocess.run(script, capture_output=True, text=True, timeout=400, check=False)
    if done.returncode != 0:
        pytest.skip(f"the bare base image cannot be made: {done.stderr[-300:]}")
    yield BARE
    client = connect(None)
    archive.remove(client, BARE)
    client.close()


BARE = "chutes-test-bare:1"
SMALL = {
    "INSTANCE_MEMORY_MB": "512",
    "INSTANCE_SHM_MB": "32",
    "INSTANCE_TMP_MB": "64",
    "INSTANCE_PIDS": "96",
}
