"""One devnet process for the whole folder; each test uses accounts of its own."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chutes_core.devnet.launch import DevnetProcess
from chutes_core.devnet.metadata import DEFAULT_METADATA

sys.path.insert(0, str(Path(__file__).parent))  # for devnet_load

BLOCK_SECONDS = 0.2
TEMPO = 20


@pytest.fixture(scope="session")
def metadata_file():
    if not DEFAULT_METADATA.is_file():
        pytest.skip(f"{DEFAULT_METADATA} is missing: python scripts/fetch_metadata.py")
    return DEFAULT_METADATA


@pytest.fixture(scope="session")
def devnet(metadata_file, tmp_path_factory) -> Iterator[DevnetProcess]:
    """A running devnet; the SDK's metadata cache goes to a temporary folder."""
    cache = tmp_path_factory.mktemp("bittensor-cache")
    before = os.environ.get("BITTENSOR_RUNTIME_CACHE_DIR")
    os.environ["BITTENSOR_RUNTIME_CACHE_DIR"] = str(cache)
    with DevnetProcess(block_seconds=BLOCK_SECONDS, tempo=TEMPO, dev_controls=True) as process:
        yield process
    if before is None:
        del os.environ["BITTENSOR_RUNTIME_CACHE_DIR"]
    else:
        os.environ["BITTENSOR_RUNTIME_CACHE_DIR"] = before
