from collections.abc import Callable

import pytest

from chutes_core.validator.domain.invocations import Invocation


@pytest.fixture
def invocation() -> Callable[..., Invocation]:
    """Return a maker of invocations; every field can be set."""

    def make(**changes: object) -> Invocation:
        fields: dict[str, object] = {
            "worker": "",
            "sequence": 0,
            "invocation_id": "6a1c5b9e-6b7f-4f55-9b54-0c3a4a5e7a10",
            "user_id": "u",
            "key_id": "k",
            "chute_id": "c",
            "launch_id": "l",
            "rate_id": "r",
            "rao_per_hour": 3600,
            "hold_rao": 10,
            "free": False,
            "started_at_us": 1,
            "usage_us": 5_000_000,
            "bytes_in": 1,
            "bytes_out": 2,
            "attempts": 1,
            "status": 200,
            "outcome": "ok",
        }
        return Invocation(**(fields | changes))  # type: ignore[arg-type]

    return make
