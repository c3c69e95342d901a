"""The prover bundle: one of numpy is built for real and run where there is nothing else."""

import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from graval import messages
from graval.challenge import Answer
from graval.errors import BackendUnavailable
from graval.messages import Kind, Message, Warm
from graval.params import PROFILES, deadlines, reference
from graval.verifier import build_challenge, check
from scripts import build_prover_bundle
from scripts.prover_bundle import libraries, pins
from scripts.prover_bundle.elf import needed

ROOT = Path(__file__).resolve().parents[3]
buildable = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which("cc") is None,
    reason="a bundle is built on x86-64 Linux, with a C compiler",
)


@pytest.fixture(scope="session")
def empty_root(tmp_path_factory):
    """A root directory that holds a bundle at /opt/graval and nothing else."""
    root = tmp_path_factory.mktemp("image")
    build_prover_bundle.build(root / "opt" / "graval", "numpy", "cc")
    yield root
    for folder, _, _ in os.walk(root):  # what is read-only could not be removed
        Path(folder).chmod(0o755)


@pytest.fixture
def python(empty_root):
    return str(empty_root / "opt" / "graval" / "bin" / "python3")


@buildable
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_it_runs_in_a_root_directory_that_holds_nothing_else(empty_root):
    """No libc, no shell, no /proc, no environment, another path: the selftest passes."""
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin")
    command = [chroot, str(empty_root), "/opt/graval/bin/python3", "-m", "graval", "selftest"]
    done = subprocess.run(
        [*command, "--json"], env={}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"]


@buildable
def test_a_prover_of_the_bundle_answers_a_whole_challenge(python, context, replace):
    """Started with an empty environment, as from a container without Python: accepted."""
    command = [python, "-m", "graval.prover", "--backend", "numpy", "--declare", "h100_sxm"]
    with subprocess.Popen(
        command, env={}, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        warm = Warm.from_bytes(messages.read(child.stdout).body)
        asked = replace(context, device=warm.device)
        challenge = build_challenge(asked, PROFILES["test"], secret=b"s" * 32)
        answers = []
        for kind, leg in ((Kind.LEG1, challenge.leg1), (Kind.LEG2, challenge.leg2)):
            messages.write(child.stdin, Message(kind, leg.to_bytes()))
            answers.append(Answer.from_bytes(messages.read(child.stdout).body).digest)
        messages.write(child.stdin, Message(Kind.QUIT))
    due = deadlines(PROFILES["test"], reference("h100_sxm", "test"), rtt_us=0)
    assert check(challenge, *answers, 1, 1, due).accepted


@buildable
def test_nothing_of_the_surrounding_environment_counts(python, tmp_path):
    """Another Python's paths, preloaded libraries and the current folder change nothing."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')\n")
    hostile = {
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": "/nowhere",
        "LD_PRELOAD": "/nowhere.so",
        "PATH": str(tmp_path),
        "CUDA_VISIBLE_DEVICES": "GPU-1",
    }
    script = "import os, sys, numpy; print(sys.executable, numpy.__file__, *sorted(os.environ))"
    done = subprocess.run(
        [python, "-c", script], env=hostile, capture_output=True, text=True, timeout=120,
        check=True, cwd=tmp_path if sys.version_info >= (3, 11) else "/",  # PYTHONSAFEPATH
    )  # fmt: skip
    executable, numpy_file, *names = done.stdout.split()
    assert executable == python
    assert numpy_file.startswith(python.removesuffix("bin/python3"))
    assert "CUDA_VISIBLE_DEVICES" in names
    assert not {"LD_PRELOAD", "LD_LIBRARY_PATH"} & set(names)


@buildable
def test_of_the_hosts_library_folders_only_the_drivers_are_used(python, tmp_path):
    """A folder of LD_LIBRARY_PATH counts where libcuda lies in it; an image's CUDA never does."""
    driver, other = tmp_path / "driver", tmp_path / "cuda"
    for folder in (driver, other):
        folder.mkdir()
    (driver / "libcuda.so.1").touch()
    script = "print(open('/proc/self/cmdline').read().split(chr(0))[2])"
    done = subprocess.run(
        [python, "-c", script], env={"LD_LIBRARY_PATH": f"{other}::{driver}:/nowhere"},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    own = str(Path(python).parents[1] / "lib")
    nvidia = ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"]
    assert done.stdout.strip().split(":") == [own, str(driver), *nvidia]


@buildable
def test_every_library_is_in_it_and_nothing_can_be_written(empty_root):
    """What any of its files needs lies in the bundle; its manifest counts what is there."""
    bundle = empty_root / "opt" / "graval"
    files = [path for path in bundle.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert [n for path in files for n in needed(path) or () if n not in names] == []
    assert all(path.stat().st_mode & 0o222 == 0 for path in bundle.rglob("*"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["files"] == len(files) - 1
    assert manifest["backend"] == "numpy"
    assert libraries.LOADER in names


def test_another_torch_than_the_pinned_one_is_refused(monkeypatch, tmp_path):
    """A bundle of unmeasured versions is not built."""
    stubs = {"torch": types.SimpleNamespace(__version__="9.9.9"),
             "triton": types.SimpleNamespace(__version__="9.9.9")}  # fmt: skip
    for name, stub in stubs.items():
        monkeypatch.setitem(sys.modules, name, stub)
    with pytest.raises(ValueError, match="pinned"):
        build_prover_bundle.build(tmp_path / "bundle", "cuda", "cc")


def test_the_least_driver_and_the_torch_are_the_same_everywhere():
    """min_compute.yml and setup.py say what the bundle's pins say."""
    cuda = re.fullmatch(r"[\d.]+\+cu(\d\d)(\d)", pins.TORCH)
    least = pins.least_driver(f"{cuda[1]}.{cuda[2]}")
    assert f'min_driver: "{least}"' in (ROOT / "min_compute.yml").read_text()
    assert f'"torch=={pins.TORCH.split("+")[0]}"' in (ROOT / "setup.py").read_text()
    assert least in (ROOT / "docs" / "miner.md").read_text()


class StubCacheManager:
    """As much of Triton's cache manager as the bundle's builds on."""

    def __init__(self, key, *, override=False, dump=False):
        self.folder = Path(os.environ["TRITON_CACHE_DIR"]) / key

    def get_file(self, filename):
        path = self.folder / filename
        return str(path) if path.exists() else None


@pytest.fixture
def kernels(monkeypatch, tmp_path):
    """The bundle's cache manager over a stub of Triton's, and its folder."""
    cache = types.ModuleType("triton.runtime.cache")
    cache.FileCacheManager = StubCacheManager
    for name in ("triton", "triton.runtime"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "triton.runtime.cache", cache)
    monkeypatch.delitem(sys.modules, "graval.prover.kernel_cache", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("GRAVAL_BUNDLE_BUILD", raising=False)
    yield importlib.import_module("graval.prover.kernel_cache").BundledKernels, tmp_path
    sys.modules.pop("graval.prover.kernel_cache", None)


def test_kernels_are_found_where_the_bundle_lies_now(kernels):
    """A kernel's files are taken from its entry, not from the paths noted when it was compiled."""
    manager, folder = kernels
    (folder / "KEY").mkdir()
    (folder / "KEY" / "scan.cubin").write_bytes(b"code")
    noted = {"scan.cubin": "/where/it/was/built/scan.cubin", "scan.ttir": "/gone/scan.ttir"}
    (folder / "KEY" / "__grp__scan.json").write_text(json.dumps({"child_paths": noted}))
    entry = manager("KEY")
    assert entry.get_group("scan.json") == {"scan.cubin": str(folder / "KEY" / "scan.cubin")}
    assert entry.get_group("layer.json") is None


def test_a_kernel_that_the_bundle_lacks_is_a_typed_error(kernels):
    """Nothing is compiled from a bundle: the error says what to do."""
    manager, _ = kernels
    with pytest.raises(BackendUnavailable) as caught:
        manager("OTHER")
    assert caught.value.code == "kernel_missing"
    assert caught.value.hint
