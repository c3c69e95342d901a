"""A network of real processes for the end-to-end tests: two validators, two miners, one user.

It is started once for the session; tests that kill or disturb neurons start networks of their own.
Most run instances as processes; which run containers where a Docker engine answers, and why not
all of them, says docs/adr/0030. CHUTES_E2E_RUNTIME=process|docker decides otherwise.
"""

import functools
import os

import pytest

from scripts.localnet import ROOT, Localnet
from scripts.runtimes import choose, ensure_base_image
from tests.e2e.patience import give_time
from tests.e2e.two_and_two import Network

METADATA = ROOT / ".cache" / "metadata.json"


@functools.cache
def choice():
    """Return the runtime of the networks here, and why it is that one."""
    return choose(os.environ.get("CHUTES_E2E_RUNTIME"))


def runtime():
    """Return the runtime of a network that is about to start, made ready for its images."""
    if choice().runtime == "docker":
        ensure_base_image()
    return choice().runtime


def pytest_report_header():
    """Say where instances run."""
    return f"end-to-end tests that need not run processes: {choice().runtime} ({choice().reason})"


def pytest_collection_modifyitems(items):
    """Give each test time; skip, and say why, where the chain's metadata was not fetched."""
    mine = [item for item in items if "tests/e2e" in str(item.path)]
    give_time(mine)
    if METADATA.exists():
        return
    skip = pytest.mark.skip(reason="no .cache/metadata.json: run python scripts/fetch_metadata.py")
    for item in mine:
        item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def chain_cache(tmp_path_factory):
    """Keep what the SDK caches inside the test's folder."""
    folder = tmp_path_factory.mktemp("chain-cache")
    os.environ["BITTENSOR_RUNTIME_CACHE_DIR"] = str(folder)


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """Two validators, two miners with one GPU each, a registered hotkey 3 without a process."""
    with Localnet(tmp_path_factory.mktemp("network"), block_seconds=0.5, tempo=40) as net:
        yield Network(net)


@pytest.fixture
def lone_net(tmp_path):
    """A chain for a test that brings its own neurons."""
    with Localnet(tmp_path / "net", block_seconds=0.5, tempo=40) as net:
        yield net


@pytest.fixture
def hosting_net(tmp_path):
    """The same, with instances as containers where a Docker engine answers."""
    with Localnet(tmp_path / "net", block_seconds=0.5, tempo=40, runtime=runtime()) as net:
        yield net
