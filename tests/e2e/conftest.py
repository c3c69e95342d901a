"""A network of real processes for the end-to-end tests: two validators, two miners, one user.

It is started once for the session; tests that kill or disturb neurons start networks of their own.
"""

import os

import pytest

from scripts.localnet import ROOT, Localnet
from tests.e2e.two_and_two import Network

METADATA = ROOT / ".cache" / "metadata.json"


def pytest_collection_modifyitems(items):
    """Skip, and say why, where the chain's metadata was not fetched."""
    if METADATA.exists():
        return
    skip = pytest.mark.skip(reason="no .cache/metadata.json: run python scripts/fetch_metadata.py")
    for item in items:
        if "tests/e2e" in str(item.path):
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
