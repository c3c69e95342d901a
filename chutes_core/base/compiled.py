"""Whether modules of this checkout run compiled, and whether they are what their sources say.

`scripts/compile.py` puts an extension module beside each of some sources, and a record of what they
were made of and are; Python then imports the extensions. Invariant: a neuron whose compiled modules
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


def digests(names: Iterable[str], package: Path = PACKAGE) -> dict[str, str]:
    """Return the sha256 of files, by their paths within the package."""
    return {name: sha256((package / name).read_bytes()).hexdigest() for name in names}


def modules(package: Path = PACKAGE, ending: str = "") -> list[str]:
    """Return the extension modules that lie in the package, by their paths within it.

    Args:
        package: the folder of chutes_core.
        ending: of their names; this interpreter's by default.
    """
    found = package.rglob(f"*{ending or suffix()}")
    return sorted(path.relative_to(package).as_posix() for path in found)


def check(package: Path = PACKAGE) -> bool:
    """Tell whether modules run compiled.

    Raises:
        Conflict: ``compiled_stale``, the compiled modules are not those of the sources, or nobody
            knows of which.
    """
    record = _record(package)
    known: dict[str, str] = record["modules"]
    if modules(package) != sorted(known):
        raise _stale("other compiled modules lie here than were built")
    sources: dict[str, str] = record["sources"]
    if not all((package / name).is_file() for name in sources):
        raise _stale("sources are gone since they were compiled")
    if digests(sources, package) != sources:
        raise _stale("sources have changed since they were compiled")
    if digests(known, package) != known:
        raise _stale("compiled modules are not as they were built")
    return bool(known)


def _record(package: Path) -> dict[str, dict[str, str]]:
    """Return what this interpreter's modules were made of; nothing where there are none."""
    path = package / RECORD
    if path.is_file():
        record: dict[str, dict[str, str]] = json.loads(path.read_text("utf-8")).get(suffix(), {})
        if record:
            return record
    return {"sources": {}, "modules": {}}


def _stale(why: str) -> Conflict:
    return Conflict("compiled_stale", why, hint=REMEDY)
