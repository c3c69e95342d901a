"""The runner in images with another Python than the base's, and with no package of ours."""

import subprocess
import tarfile
from pathlib import Path

import pytest

from chutes_core.engine import archive
from chutes_core.engine.check import image_facts, python_facts
from chutes_core.validator.catalog.builder import BuildFailed

ROOT = Path(__file__).resolve().parents[3]
BARE = "chutes-test-bare:1"
PLACES = ("/root/.pyenv/versions", "/opt/python", "/usr/local/python")


@pytest.fixture(scope="module")
def bare(engine):
    """The base image without the packages that the runner needs."""
    script = [str(ROOT / "images" / "build_cpu_base.sh"), "--bare", BARE]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"the bare base image cannot be made: {done.stderr[-300:]}")
    yield BARE
    archive.remove(engine, BARE)


@pytest.fixture
def other_python(engine, bare, tmp_path):
    """Makes an image with one Python alone, taken from this machine where it has that version."""
    names = []

    def make(version):
        found = [path for place in PLACES for path in Path(place).glob(f"{version}.*/bin/python3")]
        if not found:
            pytest.skip(f"this machine has no Python {version} that can be copied into an image")
        home = found[0].parent.parent
        with tarfile.open(tmp_path / "python.tar", "w") as tar:
            tar.add(home, "python", filter=_slim)
        (tmp_path / "Dockerfile").write_text(
            f"FROM {bare}\nADD python.tar /opt/\n"
            "RUN echo /opt/python/lib >/etc/ld.so.conf && /sbin/ldconfig\n"
            "RUN rm -rf /usr/bin/python* /usr/bin/pip* /usr/lib/python3*\n"
            "ENV PATH=/opt/python/bin:/usr/local/bin:/usr/bin:/bin\n"
        )
        name = f"chutes-test-python:{version}"
        engine.images.build(path=str(tmp_path), tag=name, rm=True)
        names.append(name)
        return name

    yield make
    for name in names:
        archive.remove(engine, name)


def test_an_image_with_no_package_of_ours_gets_all_that_the_runner_needs(bench, bare):
    """The layer brings the runner's requirements along."""
    made = bench.builder().build(bench.image("bare", f"FROM {bare}"), bench.log)
    assert "the runner can be imported" in bench.lines
    assert image_facts(bench.engine, made.image_digest).size_bytes > 0


def test_the_runner_works_in_an_image_with_python_3_10_alone(bench, other_python):
    """The oldest Python that a chute's image may have."""
    name = other_python("3.10")
    made = bench.builder().build(bench.image("python310", f"FROM {name}"), bench.log)
    assert "the runner can be imported" in bench.lines
    assert python_facts(bench.engine, made.image_digest).version[:2] == (3, 10)


def test_an_image_with_python_3_9_alone_is_refused(bench, other_python):
    """The status says which version it has and what to do."""
    name = other_python("3.9")
    with pytest.raises(BuildFailed, match=r"is Python 3\.9\.\d+; 3\.10 or later is needed"):
        bench.builder().build(bench.image("python39", f"FROM {name}"), bench.log)


def _slim(entry):
    parts = entry.name.split("/")
    if {"__pycache__", "test", "tests", "idlelib", "ensurepip"} & set(parts):
        return None
    return None if entry.name.endswith(".a") else entry
