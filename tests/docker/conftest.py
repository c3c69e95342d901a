"""A network on the Docker engine that DOCKER_HOST names; skipped, with the reason, without one."""

import os

import pytest

from scripts.localnet import Localnet
from scripts.runtimes import choose, ensure_base_image


def pytest_collection_modifyitems(items):
    """Skip where no engine answers or its firewall cannot be set."""
    mine = [item for item in items if "tests/docker" in str(item.path)]
    if not mine:
        return
    choice = choose(None)
    for item in mine:
        item.add_marker(pytest.mark.docker)
        if choice.runtime != "docker":
            item.add_marker(pytest.mark.skip(reason=choice.reason))


@pytest.fixture(scope="session")
def docker_net(tmp_path_factory):
    """Chain, validator, two miners with small instances; images as archives by digest."""
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


SMALL = {
    "INSTANCE_MEMORY_MB": "512",
    "INSTANCE_SHM_MB": "32",
    "INSTANCE_TMP_MB": "64",
    "INSTANCE_PIDS": "96",
}
