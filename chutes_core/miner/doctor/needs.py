"""min_compute.yml as values, and this host held against it.

Invariant: the numbers stand in min_compute.yml alone; docs/miner.md repeats them, a test compares
(tests/unit/miner/test_miner_doctor.py).
"""

import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from chutes_core.base.errors import Invalid
from chutes_core.miner.doctor.report import Finding, State
from chutes_core.wire.control import HostFacts

FILE = Path(__file__).resolve().parents[3] / "min_compute.yml"
_GB = 1_000_000_000
_SHORT_OF = 0.93
"""A host sold with n GB shows a little less to its programs."""


@dataclass(frozen=True)
class Needs:
    """What a miner's host must have (``least``) and should have (``better``)."""

    cores: tuple[int, int]
    memory_gb: tuple[int, int]
    disk_gb: tuple[int, int]
    architecture: str
    kernel: tuple[int, int]
    python: tuple[tuple[int, int], tuple[int, int]]
    bandwidth_mbps: int
    driver: str


def read_needs(file: Path = FILE) -> Needs:
    """Return the miner's part of min_compute.yml.

    Raises:
        Invalid: ``bad_min_compute``: it is missing or not what it should be.
    """
    try:
        miner = yaml.safe_load(file.read_text())["compute_spec"]["miner"]
        cpu, memory, disk = miner["cpu"], miner["memory"], miner["storage"]
        first, last = (_version(part) for part in miner["software"]["python"].split("-"))
        return Needs(
            cores=(int(cpu["min_cores"]), int(cpu["recommended_cores"])),
            memory_gb=(int(memory["min_ram_gb"]), int(memory["recommended_ram_gb"])),
            disk_gb=(int(disk["min_space_gb"]), int(disk["recommended_space_gb"])),
            architecture=str(cpu["architecture"]),
            kernel=_version(str(miner["os"]["kernel"]).split()[0]),
            python=(first, last),
            bandwidth_mbps=int(miner["network"]["min_bandwidth_mbps"]),
            driver=_driver(miner["gpu"]["min_driver"]),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise Invalid(
            "bad_min_compute", f"{file} cannot be used: {error}", hint="take it from the checkout"
        ) from error


def held_against(
    needs: Needs, host: HostFacts, *, kernel: str = "", python: tuple[int, int] | None = None
) -> Iterable[Finding]:
    """Return how this host compares."""
    yield _more("cores", host.cpus, needs.cores, "cores", "use a larger host")
    memory = host.memory_bytes / _GB
    yield _more("memory", memory, needs.memory_gb, "GB of memory", "use a host with more memory")
    disk = host.disk_free_bytes / _GB
    yield _more("disk", disk, needs.disk_gb, "GB free under data_dir", "free or add disk space")
    same = host.architecture in (needs.architecture, needs.architecture.replace("x86_64", "AMD64"))
    yield _whether("architecture", host.architecture, needs.architecture, well=same)
    kernel = kernel or platform.release()
    enough = _version(kernel) >= needs.kernel
    yield _whether("kernel", kernel, f"{_dotted(needs.kernel)} or later", well=enough)
    python = python or sys.version_info[:2]
    first, last = needs.python
    fits = first <= python <= last
    yield _whether("python", _dotted(python), f"{_dotted(first)} - {_dotted(last)}", well=fits)
    yield _bandwidth(needs, host)


def driver_held_against(needs: Needs, driver: str) -> Finding:
    """Return how the NVIDIA driver of this host compares."""
    if _parts(driver) >= _parts(needs.driver):
        return Finding("driver version", "ok", driver)
    return Finding(
        "driver version",
        "fail",
        f"{driver or 'it does not tell its version'}; {needs.driver} or later is needed",
        f"apt-get install nvidia-driver-{needs.driver.split('.')[0]}, and reboot",
    )


def _bandwidth(needs: Needs, host: HostFacts) -> Finding:
    if host.measured_bytes_per_s is None:
        return Finding("bandwidth", "skip", "not measured yet: no image was fetched")
    mbps = host.measured_bytes_per_s * 8 / 1e6
    state: State = "ok" if mbps >= needs.bandwidth_mbps else "warn"
    fix = "" if state == "ok" else f"images come slowly: {needs.bandwidth_mbps} Mbit/s are needed"
    return Finding("bandwidth", state, f"{mbps:.0f} Mbit/s over the last images", fix)


def _more(name: str, has: float, wants: tuple[int, int], unit: str, fix: str) -> Finding:
    least, better = wants
    found = f"{has:.0f} {unit}; {least} are needed, {better} are better"
    if has < least * _SHORT_OF:
        return Finding(name, "fail", found, fix)
    return Finding(name, "ok" if has >= better * _SHORT_OF else "warn", found, "")


def _whether(name: str, has: str, wants: str, *, well: bool) -> Finding:
    if well:
        return Finding(name, "ok", has)
    return Finding(name, "fail", f"{has}; {wants} is needed", f"use a host with {wants}")


def _version(text: str) -> tuple[int, int]:
    major, minor = [*text.strip().split("."), "0"][:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or "0")


def _driver(value: object) -> str:
    if not isinstance(value, str) or not _parts(value):  # YAML makes a number of an unquoted 580.65
        raise ValueError(f"min_driver {value!r} is no version in quotes")
    return value


def _parts(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)
