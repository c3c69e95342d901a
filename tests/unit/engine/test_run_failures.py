"""What engines say when they refuse, and what we make of it.

Two texts were seen on an engine here (marked); the others are as sources and bug reports have them.
"""

import docker
import pytest
import requests
from docker.errors import APIError

from chutes_core.base.errors import ChutesError
from chutes_core.engine.failures import explain, explained


def api_error(status, explanation):
    response = requests.Response()
    response.status_code = status
    return APIError("refused", response, explanation)


REFUSALS = [
    # seen: engine 20.10, no NVIDIA toolkit, DeviceRequests given
    (500, 'could not select device driver "" with capabilities: [[gpu]]', "gpu_runtime_missing"),
    # seen: engine 20.10, HostConfig.Runtime = nvidia
    (400, "Unknown runtime specified nvidia", "unknown_runtime"),
    # newer engines, not seen here
    (400, "unknown or invalid runtime name: nvidia", "unknown_runtime"),
    # NVIDIA toolkit, no such UUID, not seen here
    (
        500,
        "OCI runtime create failed: nvidia-container-cli: device error: GPU-x: unknown device",
        "gpu_not_usable",
    ),
    # not seen here
    (500, "write /var/lib/docker/tmp/x: no space left on device", "disk_full"),
    (404, "No such image: sha256:00", "no_such_image"),
    (404, "No such container: x", "not_in_engine"),
    (409, "Conflict. The container name is already in use", "engine_refused"),
    (500, "something new", "engine_refused"),
]


@pytest.mark.parametrize(("status", "text", "code"), REFUSALS)
def test_a_refusal_has_a_code_and_keeps_the_engines_words(status, text, code):
    """Known causes are named; what is not known still says what the engine said."""
    error = explain(api_error(status, text), "start a container")
    assert error.code == code
    assert text[-60:] in error.message
    assert "start a container" in error.message


@pytest.mark.parametrize(
    "code", ["gpu_runtime_missing", "unknown_runtime", "gpu_not_usable", "disk_full"]
)
def test_a_cause_on_the_host_has_a_fix(code):
    """Whoever runs the miner reads what to do."""
    status, text, _ = next(row for row in REFUSALS if row[2] == code)
    assert explain(api_error(status, text), "start a container").hint


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (requests.exceptions.ConnectionError("refused"), "engine_unreachable"),
        (requests.exceptions.ReadTimeout("slow"), "engine_timeout"),
        (docker.errors.DockerException("no socket"), "engine_unreachable"),
        (ConnectionResetError("reset"), "engine_unreachable"),
    ],
)
def test_a_silent_engine_is_told_from_one_that_refuses(raised, code):
    """No error of the SDK or its HTTP client leaves the room."""
    with pytest.raises(ChutesError) as caught, explained("list containers"):
        raise raised
    assert caught.value.code == code
    assert caught.value.__cause__ is raised


def test_our_own_errors_pass_as_they_are():
    """What is typed already is not wrapped again."""
    ours = ChutesError("mine", "text")
    with pytest.raises(ChutesError) as caught, explained("x"):
        raise ours
    assert caught.value is ours
