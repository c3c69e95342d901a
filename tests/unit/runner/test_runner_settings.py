"""Settings of the runner."""

import json
import uuid

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.runner.settings import RunnerSettings

GIVEN = {
    "CHUTES_RUNNER_LAUNCH_ID": str(uuid.UUID(int=7)),
    "CHUTES_RUNNER_VALIDATOR_PUBLIC_KEY": "ab" * 32,
    "CHUTES_RUNNER_GPUS": json.dumps([{"index": 1, "uuid": "GPU-1", "declare": "h100_sxm"}]),
    "HOME": "/root",
}


def test_what_the_miner_gives_is_read_and_the_rest_has_defaults():
    """Only the launch, the key and the GPUs are needed."""
    settings = RunnerSettings.load(GIVEN)
    assert settings.gpus[0].declare == "h100_sxm"
    assert (settings.host, settings.port) == ("127.0.0.1", 0)
    assert settings.ready_file is None


def test_an_empty_variable_counts_as_not_given():
    """An empty port is the default port."""
    assert RunnerSettings.load(GIVEN | {"CHUTES_RUNNER_PORT": ""}).port == 0


def test_an_unknown_variable_names_the_closest():
    """A typing mistake never silently means a default."""
    with pytest.raises(Invalid) as caught:
        RunnerSettings.load(GIVEN | {"CHUTES_RUNNER_PROT": "1"})
    assert caught.value.code == "unknown_setting"
    assert "CHUTES_RUNNER_PORT" in caught.value.hint


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAUNCH_ID", "none"),
        ("VALIDATOR_PUBLIC_KEY", "xyz"),
        ("GPUS", "[]"),
        ("GPUS", "no json"),
        ("GPUS", '[{"index": 0, "uuid": "GPU 0"}]'),
        ("PORT", "70000"),
        ("FIRST_LEASE_S", "0"),
    ],
)
def test_a_wrong_value_is_refused(variable, value):
    """Every value is checked before anything starts."""
    with pytest.raises(Invalid) as caught:
        RunnerSettings.load(GIVEN | {f"CHUTES_RUNNER_{variable}": value})
    assert caught.value.code == "bad_setting"
    assert variable.lower() in caught.value.message
