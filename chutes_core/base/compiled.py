"""Whether modules of this checkout run compiled, and whether they are what their sources say.

`scripts/compile.py` puts an extension module beside each of some sources, and this record of what
they were made of; Python then imports the extensions. Invariant: a neuron whose compiled modules
are not those of its sources does not start (`check`): nobody runs code that they do not see.
"""

import json
import sysconfig
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from chutes_core.base.errors import Conflict

PACKAGE = Path(__file__).resolve().parents[1]
RECORD = "compiled.json"
REMEDY = "run python scripts/compile.py again, or python scripts/compile.py --remove"


def suffix() -> str:
    """Return how the name of an extension module ends for this interpreter."""
    return str(sysconfig.get_config_var("EXT_SUFFIX"))


def extension_of(source: Path) -> Path:
    """Return where the compiled form of a source lies."""
    return source.with_name(source.stem + suffix())


def digests(sources: Iterable[str], package: Path = PACKAGE) -> dict[str, str]:
    """Return the sha256 of sources, by their paths within the package."""
    return {name: sha256((package / name).read_bytes()).hexdigest() for name in sources}


def check(package: Path = PACKAGE) -> bool:
    """Tell whether modules run compiled; without a record of this interpreter's none do.

    Raises:
        Conflict: ``compiled_stale``, the compiled modules are not those of the sources.
    """
    path = package / RECORD
    if not path.is_file():
        return False
    record = json.loads(path.read_text("utf-8"))
    if record["suffix"] != suffix():
        return False  # another interpreter's, which this one does not import
    sources: dict[str, str] = record["sources"]
    there = all((package / name).is_file() for name in sources)
    if not there or digests(sources, package) != sources:
        raise _stale("sources have changed since they were compiled")
    if not all(extension_of(package / name).is_file() for name in sources):
        raise _stale("some compiled modules are missing")
    return True


def _stale(why: str) -> Conflict:
    return Conflict("compiled_stale", why, hint=REMEDY)
