"""The doctor's try with a container, against what engines answer; no GPU here has run it.

The refusals marked "seen" were recorded from an engine 20.10 without a GPU; the others are as the
NVIDIA toolkit's documentation and reports show them.
"""

from dataclasses import replace

import pytest
import requests
from docker.errors import APIError

from chutes_core.engine.gpu import device_requests
from chutes_core.miner.doctor import gpus as checks
from chutes_core.miner.gpus import Device
from chutes_core.miner.settings import MinerSettings

UUIDS = ("GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-000000000000")
DEVICES = tuple(
    Device(i, uuid, "NVIDIA H100 80GB HBM3", 81559 << 20, 0) for i, uuid in enumerate(UUIDS)
)
LISTED = "".join(f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: {uuid})\n" for i, uuid in enumerate(UUIDS))
IMAGES = [
    {"Id": "sha256:1", "RepoTags": None},
    {"Id": "sha256:2", "RepoTags": ["debian:12"]},
    {"Id": "sha256:3", "RepoTags": ["debian:13", "chutes-image:abc"]},
]
WITH_TOOLKIT = {
    "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}}
}
WITHOUT = {
    "Runtimes": {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}}
}  # seen
WITH_CDI = {**WITHOUT, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}


def refusal(status, text):
    response = requests.Response()
    response.status_code = status
    return APIError("refused", response, text)


class Engine:
    """Answers as recorded, and remembers what it was asked to make."""

    def __init__(self, *, about=WITH_TOOLKIT, images=IMAGES, says=LISTED, refuses=None, at=""):
        self.about, self.listed, self.says = about, images, says
        self.refuses, self.at = refuses, at
        self.made, self.left = [], []
        self.api = self

    def _answer(self, step):
        if step == self.at:
            raise self.refuses

    def info(self):
        return self.about

    def images(self):
        return self.listed

    def create_host_config(self, **options):
        return options

    def create_container(self, image, **options):
        self._answer("create")
        self.made.append((image, options))
        self.left.append("c1")
        return {"Id": "c1"}

    def start(self, container):
        self._answer("start")

    def wait(self, container, timeout):
        self._answer("wait")
        return {"StatusCode": 0}

    def logs(self, container):
        return self.says.encode()

    def remove_container(self, container, *, force, v):
        self.left.remove(container)


@pytest.fixture(autouse=True)
def devices(monkeypatch):
    monkeypatch.setattr(checks, "read_devices", lambda: DEVICES)


async def found(engine, **settings):
    """Return the findings by check, after which no container is left."""
    findings = await checks.look_at_containers(engine, MinerSettings(**settings))
    if engine is not None:
        assert engine.left == []
    return {finding.check: finding for finding in findings}


async def test_a_container_that_lists_all_gpus_is_well():
    """It is asked for by UUID, runs nvidia-smi alone, without network and capabilities."""
    engine = Engine()
    findings = await found(engine)
    assert {finding.state for finding in findings.values()} == {"ok"}
    ((image, options),) = engine.made
    assert image == "chutes-image:abc"
    assert (options["entrypoint"], options["command"]) == (["nvidia-smi"], ["-L"])
    host = options["host_config"]
    assert host["device_requests"] == device_requests(UUIDS)
    assert (host["network_mode"], host["cap_drop"]) == ("none", ["ALL"])


@pytest.mark.parametrize(
    ("about", "state"), [(WITH_TOOLKIT, "ok"), (WITH_CDI, "ok"), (WITHOUT, "warn"), ({}, "warn")]
)
async def test_the_toolkit_is_what_the_engine_says_of_itself(about, state):
    """A runtime called nvidia, or devices by CDI; without either the fix is the toolkit."""
    toolkit = (await found(Engine(about=about)))["toolkit"]
    assert toolkit.state == state
    assert ("nvidia-ctk" in toolkit.fix) == (state == "warn")


@pytest.mark.parametrize(
    ("at", "error", "part"),
    [
        # seen: engine 20.10, no NVIDIA toolkit
        ("start", refusal(500, 'could not select device driver "" with capabilities: [[gpu]]'), ""),
        ("start", refusal(500, "nvidia-container-cli: device error: GPU-x: unknown device"), ""),
        ("start", refusal(500, 'exec: "nvidia-smi": executable file not found in $PATH'), ""),
        ("create", refusal(404, "No such image: chutes-image:abc"), ""),
        ("wait", requests.exceptions.ReadTimeout("Read timed out."), "engine"),
    ],
)
async def test_a_refusal_is_a_finding_with_a_fix_and_leaves_no_container(at, error, part):
    """Whatever step fails, the operator reads the engine's words and what to do."""
    finding = (await found(Engine(at=at, refuses=error)))["gpu container"]
    assert finding.state == "fail"
    assert finding.fix
    assert part in finding.found
    if isinstance(error, APIError):
        assert error.explanation[-40:] in finding.found


async def test_a_gpu_that_is_not_seen_inside_is_named():
    """One of two: the finding names the other."""
    finding = (await found(Engine(says=LISTED.splitlines()[0])))["gpu container"]
    assert finding.state == "fail"
    assert UUIDS[1] in finding.found
    assert UUIDS[0] not in finding.found


async def test_without_an_image_an_engine_or_a_gpu_nothing_is_tried(monkeypatch):
    """What could not be tried is skipped with the reason, never called well."""
    engine = Engine(images=IMAGES[:2])
    assert (await found(engine))["gpu container"].state == "skip"
    assert engine.made == []
    assert (await found(None))["gpu container"].state == "skip"
    assert (await found(Engine(), runtime="process"))["gpu container"].state == "skip"
    monkeypatch.setattr(checks, "read_devices", lambda: ())
    assert (await found(Engine()))["gpu container"].state == "skip"


async def test_the_drivers_version_is_among_the_findings(monkeypatch, tmp_path):
    """min_compute.yml's least driver is held against what NVML says."""
    monkeypatch.setattr(checks, "_health", lambda gpus: ())
    for driver, state in (("999.1", "ok"), ("470.2", "fail")):
        devices = tuple(replace(device, driver=driver) for device in DEVICES)
        monkeypatch.setattr(checks, "read_devices", lambda devices=devices: devices)
        findings = await checks.look_at_gpus(MinerSettings(data_dir=str(tmp_path)))
        assert {f.check: f.state for f in findings}["driver version"] == state
