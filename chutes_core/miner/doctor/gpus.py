"""The doctor's look at the GPUs: driver, devices, health, toolkit, a container, the provers.

Invariant: it holds no GPU and leaves no container behind; a host without GPUs is told apart from
one whose driver is broken.
"""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from chutes_core.base.errors import ChutesError
from chutes_core.engine.connect import Engine
from chutes_core.engine.failures import explained
from chutes_core.engine.gpu import device_requests
from chutes_core.miner.doctor.needs import driver_held_against, read_needs
from chutes_core.miner.doctor.report import Finding
from chutes_core.miner.gpus import read_devices, sort_devices
from chutes_core.miner.health import UNWELL, KernelLog, is_at, judge, read_vitals
from chutes_core.miner.host import is_in_use
from chutes_core.miner.inventory import Gpu, real_gpus
from chutes_core.miner.settings import MinerSettings

TOOLKIT = (
    "apt-get install nvidia-container-toolkit && nvidia-ctk runtime configure --runtime=docker"
    " && systemctl restart docker"
)
PROBE_IMAGES = ("chutes-image", "parachutes/python", "parachutes/base-python")
_PROBE_S = 60
_PROVER = (
    "import torch, triton, json; print(json.dumps([torch.__version__, triton.__version__,"
    " torch.cuda.is_available(), torch.cuda.device_count()]))"
)
_PROVER_S = 90


async def look_at_gpus(settings: MinerSettings) -> Iterable[Finding]:
    """Return what the driver says."""
    declared = sum(one.count for one in settings.declared_gpus)
    if declared:
        return [Finding("gpus", "ok", f"{declared} declared stand-ins (a devnet only)")]
    devices = await asyncio.to_thread(read_devices)
    if not devices:
        fix = "install the NVIDIA driver (nvidia-smi must list the GPUs)"
        return [Finding("driver", "fail", "no NVIDIA driver, or no GPU that it shows", fix)]
    driver = devices[0].driver
    findings = [Finding("driver", "ok", f"driver {driver}, {len(devices)} GPUs")]
    findings.append(driver_held_against(read_needs(), driver))
    if is_in_use(settings.data_path):  # what fills their memory is the miner's own
        devices = tuple(replace(device, used_bytes=0) for device in devices)
    offers, left_out = sort_devices(devices)
    fixes = {
        "unknown_device": "this class is not in graval's table: it cannot be attested",
        "mig_enabled": "nvidia-smi -mig 0, and reset the GPU",
        "device_busy": "end the other programs that use it (nvidia-smi lists them)",
    }
    findings += [
        Finding("gpu", "ok", f"{o.device.uuid} {o.device.name}, offered as {o.gpu_class}")
        for o in offers
    ]
    findings += [
        Finding(
            "gpu", "warn" if offers else "fail", f"{x.device.uuid}: {x.reason}", fixes[x.reason]
        )
        for x in left_out
    ]
    return [*findings, *await asyncio.to_thread(_health, real_gpus(devices))]


def _health(gpus: tuple[Gpu, ...]) -> Iterable[Finding]:
    log = KernelLog()
    messages = log.xids()
    log.close()
    for uuid, vitals in read_vitals(gpus).items():
        own = [xid for address, xid in messages if is_at(vitals.pci_bus_id, address)]
        problems = judge(vitals, own, idle=False)
        found = (
            f"{uuid}: {vitals.temperature_c} C, {vitals.ecc_uncorrected} uncorrected memory errors,"
            f" {vitals.processes} processes, {vitals.used_bytes >> 20} MiB used"
            f"{', ' + ', '.join(problems) if problems else ''}"
        )
        bad = UNWELL & set(problems)
        fix = "reset the GPU or reboot; if it comes back, replace it" if problems else ""
        yield Finding("gpu health", "fail" if bad else "warn" if problems else "ok", found, fix)


async def look_at_containers(engine: Engine | None, settings: MinerSettings) -> Iterable[Finding]:
    """Return whether containers get the GPUs: the toolkit, then a container that lists them."""
    if settings.runtime != "docker" or settings.declared_gpus:
        return [Finding("gpu container", "skip", "no container needs a real GPU here")]
    gpus = real_gpus(await asyncio.to_thread(read_devices))
    if engine is None or not gpus:
        why = "no engine" if engine is None else "no GPU"
        return [Finding("gpu container", "skip", f"{why} to try it with")]
    toolkit = await asyncio.to_thread(_toolkit, engine)
    return [toolkit, await asyncio.to_thread(_probe, engine, gpus)]


def _toolkit(engine: Engine) -> Finding:
    with explained("ask the engine what it has"):
        about: dict[str, Any] = engine.info()
    if "nvidia" in (about.get("Runtimes") or {}) or about.get("DiscoveredDevices"):
        return Finding("toolkit", "ok", "the engine knows NVIDIA's runtime or its CDI devices")
    return Finding("toolkit", "warn", "the engine lists no NVIDIA runtime", TOOLKIT)


def _probe(engine: Engine, gpus: tuple[Gpu, ...]) -> Finding:
    image = _some_image(engine)
    if image is None:
        fix = "run it again after the first image, or docker pull parachutes/python:3.12"
        return Finding("gpu container", "skip", "no image is there to try it with", fix)
    host = engine.api.create_host_config(
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        device_requests=device_requests([gpu.uuid for gpu in gpus]),
    )
    container = ""
    try:
        with explained("create a container with the GPUs"):
            container = engine.api.create_container(
                image, entrypoint=["nvidia-smi"], command=["-L"], host_config=host
            )["Id"]
        with explained("start a container with the GPUs"):
            engine.api.start(container)
            engine.api.wait(container, timeout=_PROBE_S)
            said = engine.api.logs(container).decode(errors="replace")
    except ChutesError as error:
        return Finding("gpu container", "fail", str(error), error.hint or TOOLKIT)
    finally:
        if container:
            with contextlib.suppress(ChutesError), explained("remove a container"):
                engine.api.remove_container(container, force=True, v=True)
    missing = [gpu.uuid for gpu in gpus if gpu.uuid not in said]
    if missing:
        return Finding("gpu container", "fail", f"not seen inside: {', '.join(missing)}", TOOLKIT)
    return Finding("gpu container", "ok", f"all {len(gpus)} GPUs are seen inside a container")


def _some_image(engine: Engine) -> str | None:
    with explained("list images"):
        for image in engine.api.images():
            for name in image.get("RepoTags") or ():
                if name.split(":")[0] in PROBE_IMAGES:
                    return str(name)
    return None


async def look_at_provers(settings: MinerSettings) -> Iterable[Finding]:
    """Return whether graval's provers can run: PyTorch and Triton that see the GPUs."""
    if settings.declared_gpus:
        return [Finding("provers", "skip", "stand-ins are proven on the CPU")]
    if settings.runtime == "docker" and settings.graval_path is None:
        fix = "set CHUTES_MINER_GRAVAL_HOME to a prover bundle; see docs/miner.md"
        return [Finding("provers", "fail", "containers have no PyTorch for graval", fix)]
    return [await asyncio.to_thread(_provers, settings.prover_python)]


def _provers(python: str) -> Finding:
    try:
        done = subprocess.run(
            [python, "-c", _PROVER], capture_output=True, text=True, timeout=_PROVER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("provers", "fail", f"{python}: {error}", "set CHUTES_MINER_GPU_PYTHON")
    if done.returncode != 0 or "true" not in done.stdout:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        fix = "install torch and triton for it, with a CUDA version that the driver takes"
        return Finding("provers", "fail", f"{python}: {' '.join(said)}", fix)
    return Finding("provers", "ok", f"{python}: torch, triton, cuda, GPUs {done.stdout.strip()}")
