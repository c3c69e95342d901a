"""A prover bundle that cannot run on this host's GPUs is refused before anything is offered."""

import json
import sys
from dataclasses import replace

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.miner.checks import check_bundle
from chutes_core.miner.gpus import Device
from chutes_core.miner.settings import MinerSettings

H100 = Device(0, "GPU-a", "NVIDIA H100 80GB HBM3", 81559 << 20, 1 << 20, driver="580.159.04")


@pytest.fixture
def bundle(tmp_path):
    """Write a bundle's manifest; return its folder."""

    def write(text):
        (tmp_path / "manifest.json").write_text(text)
        return tmp_path

    return write


CUDA = json.dumps({"format": 1, "backend": "cuda", "least_driver": "580.65.06", "files": 7})


def test_a_driver_that_is_new_enough_is_taken(bundle):
    """580.159.04 is newer than 580.65.06: parts are compared as numbers."""
    check_bundle(bundle(CUDA), (H100,))


@pytest.mark.parametrize(
    ("manifest", "driver", "code"),
    [
        (CUDA, "580.65.05", "driver_too_old"),
        (CUDA, "575.57.08", "driver_too_old"),
        (CUDA.replace("cuda", "numpy"), "580.159.04", "bad_graval_home"),
        ("{}", "580.159.04", "bad_graval_home"),
        (CUDA.replace("580.65.06", "latest"), "580.159.04", "bad_graval_home"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(bundle, manifest, driver, code):
    """An old driver, a bundle for stand-ins, and a manifest that is none."""
    with pytest.raises(Invalid) as caught:
        check_bundle(bundle(manifest), (replace(H100, driver=driver),))
    assert caught.value.code == code
    assert caught.value.hint


def test_what_cannot_be_judged_is_not(bundle, tmp_path):
    """No bundle, no manifest, no real GPU, a driver that does not say its version."""
    check_bundle(None, (H100,))
    check_bundle(tmp_path / "handmade", (H100,))
    check_bundle(bundle("{}"), ())
    check_bundle(bundle(CUDA), (replace(H100, driver=""),))


def test_provers_run_from_the_bundle_also_outside_of_containers(tmp_path):
    """What runs them: gpu_python where it is set, the bundle's Python, else this interpreter."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").touch()
    settings = MinerSettings.load({}, graval_home=str(tmp_path))
    assert settings.prover_python == str(tmp_path / "bin" / "python3")
    both = MinerSettings.load({}, graval_home=str(tmp_path), gpu_python="/other")
    assert both.prover_python == "/other"
    assert MinerSettings.load({}).prover_python == sys.executable
