"""A store on disk that a test can close and open again, and records to put into it."""

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.launches import Launch
from chutes_core.validator.store.database import Store


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def open_store(tmp_path, clock):
    """Opens the same file again and again, as restarts of the validator do."""
    opened = []

    def open_again():
        for store in opened:
            store.close()
        opened.append(Store(tmp_path / "data" / "validator.db", clock=clock))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def new_account():
    def make(number, name=None):
        name = name or f"user-{number}"
        return Account(
            user_id=f"id-{name}",
            number=number,
            username=name,
            hotkey_ss58=f"hot-{name}",
            coldkey_ss58="cold",
            payment_address=f"pay-{number}",
            deposit_address=f"deposit-{number}",
            fingerprint_sha256="0" * 64,
            created_at_s=1,
            roles=frozenset({"developer", "free"}),
        )

    return make


@pytest.fixture
def new_launch():
    def make(number=1, **changes):
        fields = {
            "launch_id": f"launch-{number}",
            "chute_id": "chute",
            "version": "version",
            "image_id": "image",
            "miner_hotkey": "miner",
            "miner_coldkey": "cold",
            "registered_at_block": 7,
            "node_id": "node",
            "gpu_uuids": (f"GPU-{number}a", f"GPU-{number}b"),
            "gpu_class": "l4",
            "relay_host": "127.0.0.1",
            "relay_port": 4000,
            "profile": "test",
            "stand_in": True,
            "requested_at_s": 100,
            "deadline_s": 200,
            **changes,
        }
        return Launch(**fields)

    return make
