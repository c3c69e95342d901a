"""Builds on an image with a Python that is too old.

That 3.10 is enough, with no package of ours, is tried in tests/docker/test_runner_in_images.py.
"""

import pytest

from chutes_core.engine import archive
from chutes_core.validator.catalog.builder import BuildFailed
from tests.docker.pythons import python_alone

PYTHON39 = "chutes-test-python39:1"


def test_an_image_with_python_3_9_alone_is_refused(bench, engine, bare_image, tmp_path):
    """The status says which version it has and what to do."""
    python_alone(engine, tmp_path, base=bare_image, version="3.9", name=PYTHON39)
    try:
        with pytest.raises(BuildFailed, match=r"is Python 3\.9\.\d+; 3\.10 or later is needed"):
            bench.builder().build(bench.image("python39", f"FROM {PYTHON39}"), bench.log)
    finally:
        archive.remove(engine, PYTHON39)
