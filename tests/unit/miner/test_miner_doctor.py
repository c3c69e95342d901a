"""min_compute.yml, the doctor's comparison with it, and the page that repeats it."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from chutes_core.base.errors import Invalid, Unavailable
from chutes_core.miner.cache.opening import bounds_of
from chutes_core.miner.doctor.cache import look_at_cache
from chutes_core.miner.doctor.needs import driver_held_against, held_against, read_needs
from chutes_core.miner.doctor.report import Finding, Report, run_check
from chutes_core.miner.host import DataDir, is_in_use
from chutes_core.miner.settings import MinerSettings
from chutes_core.wire.control import HostFacts
from scripts.write_settings import PAGE as SETTINGS_PAGE

ROOT = Path(__file__).resolve().parents[3]
GB = 1_000_000_000
LARGE = HostFacts(
    cpus=64,
    architecture="x86_64",
    memory_bytes=512 * GB,
    memory_free_bytes=400 * GB,
    disk_bytes=4000 * GB,
    disk_free_bytes=3000 * GB,
)


def states(host, **changes):
    findings = held_against(read_needs(), host, **{"kernel": "6.1.0", "python": (3, 11), **changes})
    return {finding.check: finding.state for finding in findings}


def test_a_large_host_is_well():
    """Everything is enough; what was not measured is skipped, never assumed."""
    found = states(LARGE)
    assert found.pop("bandwidth") == "skip"
    assert set(found.values()) == {"ok"}


@pytest.mark.parametrize(
    ("check", "changes", "host"),
    [
        ("cores", {}, {"cpus": 1}),
        ("memory", {}, {"memory_bytes": 1 * GB}),
        ("disk", {}, {"disk_free_bytes": 1 * GB}),
        ("architecture", {}, {"architecture": "riscv64"}),
        ("kernel", {"kernel": "4.19.0-26-amd64"}, {}),
        ("python", {"python": (3, 9)}, {}),
    ],
)
def test_each_thing_that_is_too_little_fails_alone(check, changes, host):
    """A host that lacks one thing fails in that, and its finding says what to do."""
    small = LARGE.model_copy(update=host)
    assert {c for c, state in states(small, **changes).items() if state == "fail"} == {check}


@pytest.mark.parametrize(
    ("driver", "state"),
    [
        ("580.65.06", "ok"),
        ("580.95", "ok"),
        ("610.1", "ok"),
        ("580.65.05", "fail"),
        ("575.99.99", "fail"),
        ("", "fail"),
        ("unknown", "fail"),
    ],
)
def test_an_older_driver_than_the_bundle_needs_fails(driver, state):
    """Versions are compared number by number; one that cannot be read is not enough."""
    finding = driver_held_against(replace(read_needs(), driver="580.65.06"), driver)
    assert finding.state == state
    assert ("nvidia-driver-580" in finding.fix) == (state == "fail")


def test_the_least_driver_is_the_one_of_the_bundle():
    """min_compute.yml, the pins of the prover bundle and the page say the same."""
    driver = read_needs().driver
    assert f'"{driver}"' in (ROOT / "scripts" / "prover_bundle" / "pins.py").read_text()
    assert driver in (ROOT / "docs" / "miner.md").read_text()


def test_a_slow_line_is_a_warning():
    """Measured bandwidth below the minimum warns with the figure."""
    needs = read_needs()
    slow = LARGE.model_copy(update={"measured_bytes_per_s": needs.bandwidth_mbps * 125_000 // 2})
    assert states(slow)["bandwidth"] == "warn"
    fast = slow.model_copy(update={"measured_bytes_per_s": needs.bandwidth_mbps * 125_000 * 2})
    assert states(fast)["bandwidth"] == "ok"


def test_a_broken_file_is_an_error_with_a_code(tmp_path):
    """A min_compute.yml that is missing or malformed is told, not guessed."""
    with pytest.raises(Invalid) as caught:
        read_needs(tmp_path / "missing.yml")
    assert caught.value.code == "bad_min_compute"
    (tmp_path / "odd.yml").write_text("compute_spec: [1, 2]")
    with pytest.raises(Invalid):
        read_needs(tmp_path / "odd.yml")


def test_the_page_repeats_min_compute():
    """docs/miner.md names the same cores, memory, disk, kernel and versions of Python."""
    needs, page = read_needs(), (ROOT / "docs" / "miner.md").read_text()
    (row,) = re.findall(r"^\| at least \| (.+) \|$", page, re.M)
    assert row.split(" | ") == [
        str(needs.cores[0]),
        f"{needs.memory_gb[0]} GB",
        f"{needs.disk_gb[0]} GB",
        f"{needs.bandwidth_mbps} Mbit/s",
    ]
    (row,) = re.findall(r"^\| better \| (.+) \| \|$", page, re.M)
    assert row.split(" | ") == [
        str(needs.cores[1]),
        f"{needs.memory_gb[1]} GB",
        f"{needs.disk_gb[1]} GB",
    ]
    dotted = [".".join(map(str, version)) for version in (needs.kernel, *needs.python)]
    assert f"kernel {dotted[0]} or later" in page
    assert f"Python {dotted[1]} to {dotted[2]}" in page


def test_the_supported_pythons_are_those_of_the_package():
    """min_compute.yml and setup.py agree."""
    first, last = read_needs().python
    package = (ROOT / "setup.py").read_text()
    assert f'python_requires=">={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"' in package


def test_every_setting_of_the_miner_stands_in_the_page_of_settings_and_is_an_option():
    """An operator finds each setting, and can give it on the command line."""
    neuron = (ROOT / "neurons" / "miner.py").read_text()
    page = SETTINGS_PAGE.read_text()
    hidden = {"instance_shm_mb", "instance_tmp_mb", "instance_pids", "dns", "keep_images"}
    hidden |= {"registry_password"}  # everybody on the host can read a command line
    for name in MinerSettings.model_fields:
        assert f"CHUTES_MINER_{name.upper()}" in page
        assert name in hidden or f'"--{name.replace("_", "-")}"' in neuron


async def test_an_error_becomes_a_finding_with_its_fix():
    """A check that raises fails with the error's own hint, and the others go on."""

    async def broken():
        raise Unavailable("engine_unreachable", "no engine", hint="start dockerd")

    (finding,) = await run_check("engine", broken)
    assert finding == Finding("engine", "fail", "no engine [engine_unreachable]", "start dockerd")
    report = Report((Finding("a", "ok", "x"), finding))
    assert (report.exit_code, report.as_json()["well"]) == (4, False)
    assert "fix: start dockerd" in report.text()
    assert Report((replace(finding, state="warn"),)).exit_code == 0


def test_a_running_miner_is_told_by_its_lock(tmp_path):
    """Nobody holds a folder that no miner uses; while one does, it is in use."""
    assert not is_in_use(tmp_path / "data")
    data = DataDir(tmp_path / "data")
    assert is_in_use(tmp_path / "data")
    data.close()
    assert not is_in_use(tmp_path / "data")


@pytest.mark.parametrize(
    ("cache_gb", "runtime", "user", "state", "said"),
    [
        (0, "docker", 0, "skip", "off"),
        (1, "docker", 1000, "warn", "only root"),
        (1, "process", 1000, "ok", "GB at most"),
        (1_000_000, "docker", 0, "ok", "over half of it"),
    ],
)
async def test_the_model_cache_is_looked_at(
    tmp_path, monkeypatch, cache_gb, runtime, user, state, said
):
    """Off, impossible, or how large it may be and how much room there is."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr("chutes_core.miner.doctor.cache.KEPT_FREE_BYTES", 0)
    settings = MinerSettings(cache_gb=cache_gb, runtime=runtime, data_dir=tmp_path / "none" / "yet")
    (finding,) = await look_at_cache(settings)
    assert finding.state == state
    assert said in finding.found
    monkeypatch.setattr("chutes_core.miner.doctor.cache.KEPT_FREE_BYTES", 1 << 60)
    (finding,) = await look_at_cache(settings)
    assert finding.state == ("warn" if state == "ok" else state)


def test_the_parts_of_all_gpus_fit_into_the_cache(tmp_path, monkeypatch):
    """At most half of the disk, divided among the GPUs; nothing where it cannot be."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    settings = MinerSettings(cache_gb=1, data_dir=tmp_path)
    bounds = bounds_of(settings, 3)
    half = shutil.disk_usage(tmp_path).total // 2
    assert bounds.most_bytes == min(10**9, half)
    assert bounds.part_bytes == bounds.most_bytes // 3
    assert settings.cache_path == tmp_path / "model-cache"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert bounds_of(settings, 3).most_bytes == 0
