"""Keys and a store for the miner's unit tests."""

import pytest
from bittensor_core import Keypair

from chutes_core.miner.store import MinerStore


@pytest.fixture
def miner_key():
    return Keypair.create_from_uri("//Miner")


@pytest.fixture
def store(tmp_path):
    store = MinerStore(tmp_path / "miner.sqlite3")
    yield store
    store.close()
