"""The prover bundle in a hardened container whose image holds nothing at all."""

import io
import json
import os
import shutil
import tarfile
import uuid
from pathlib import Path

import pytest

from scripts import build_prover_bundle
from tests.docker.test_start_failures import place, spec_of

__all__ = ["place"]  # the fixture
PYTHON = "/opt/graval/bin/python3"
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="a bundle needs a C compiler")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle for stand-ins, built here."""
    folder = tmp_path_factory.mktemp("bundle") / "graval"
    build_prover_bundle.build(folder, "numpy", "cc")
    yield folder
    for path, _, _ in os.walk(folder):  # what is read-only could not be removed
        Path(path).chmod(0o755)


@pytest.fixture
def said(place, bundle):
    """Return a function: what the bundle's Python says in such a container, and its exit code."""
    containers, _, _ = place
    client = containers._client
    name = f"chutes-test-nothing:{uuid.uuid4().hex[:8]}"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    repository, tag = name.split(":")
    client.api.import_image_from_data(content.getvalue(), repository=repository, tag=tag)

    def run(*arguments):
        spec = spec_of(
            place,
            image=name,
            entrypoint=(PYTHON, *arguments),
            read_only_mounts={str(bundle): "/opt/graval"},
        )
        container_id = containers.start(spec)
        code = client.api.wait(container_id, timeout=120)["StatusCode"]
        return client.api.logs(container_id).decode(), code

    yield run
    for seen in containers.all():
        containers.remove(seen.container_id)
    client.api.remove_image(name, force=True)


def test_the_selftest_passes_where_the_image_has_no_python_and_no_libc(said):
    """As user 10001, without capabilities, root read-only: everything comes from the mount."""
    text, code = said("-m", "graval", "selftest", "--json")
    assert code == 0, text
    assert json.loads(text)["ok"]


def test_the_bundle_cannot_be_written_from_inside(said):
    """The mount is read-only, whoever tries."""
    script = "import errno; open('/opt/graval/kernels/new', 'w')"
    text, code = said("-c", script)
    assert code == 1
    assert "Read-only file system" in text or "Permission denied" in text
