"""`import chutes` means our SDK, whether or not a package of that name is installed.

The CLI and the runner install this finder before they load a chute file; importing this module
installs nothing. Invariant: a module of the name ``chutes`` or below it comes from ALIASES or
does not exist; what another package has put there is set aside while the finder is installed.
Names follow shared/PUBLIC_API (Chute files).
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from chutes_core.sdk import templates

_SDK = "chutes_core.sdk"
_TEMPLATES = "chutes.chute.template"

ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "chutes": {},
    "chutes.image": {f"{_SDK}.image": ("Image",)},
    "chutes.chute": {
        f"{_SDK}.chute": ("Chute", "ChutePack"),
        f"{_SDK}.cord": ("Cord",),
        f"{_SDK}.job": ("Job", "Port"),
        f"{_SDK}.node_selector": ("NodeSelector",),
    },
    "chutes.chute.base": {f"{_SDK}.chute": ("Chute", "ChutePack")},
    "chutes.chute.cord": {f"{_SDK}.cord": ("Cord",)},
    "chutes.chute.job": {f"{_SDK}.job": ("Job", "Port")},
    "chutes.chute.node_selector": {f"{_SDK}.node_selector": ("NodeSelector",)},
    _TEMPLATES: {},
}


class ChutesFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules of ALIASES, and one for each template."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for ``chutes…``, None for everything else."""
        if fullname != "chutes" and not fullname.startswith("chutes."):
            return None
        if fullname not in ALIASES and not fullname.startswith(f"{_TEMPLATES}."):
            raise ModuleNotFoundError(
                f"{fullname!r} is not part of this SDK; it has {', '.join(sorted(ALIASES))}",
                name=fullname,
            )
        is_package = any(name.startswith(f"{fullname}.") for name in ALIASES)
        is_package = is_package or fullname == _TEMPLATES
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        """Fill a fresh module with the names of our SDK."""
        name = module.__name__
        if name.startswith(f"{_TEMPLATES}."):
            module.__dict__["__getattr__"] = _template_getattr(name.rsplit(".", 1)[1])
            return
        exported: list[str] = []
        for source, names in ALIASES[name].items():
            real = importlib.import_module(source)
            for exported_name in names:
                setattr(module, exported_name, getattr(real, exported_name))
            exported.extend(names)
        module.__dict__["__all__"] = exported


def install() -> None:
    """Put the finder first, once, and set aside foreign modules of the same names."""
    if any(isinstance(finder, ChutesFinder) for finder in sys.meta_path):
        return
    _forget(foreign=True)
    sys.meta_path.insert(0, ChutesFinder())


def uninstall() -> None:
    """Take the finder and its modules away again."""
    sys.meta_path[:] = [found for found in sys.meta_path if not isinstance(found, ChutesFinder)]
    _forget(foreign=False)


def _forget(*, foreign: bool) -> None:
    for name, module in list(sys.modules.items()):
        if name == "chutes" or name.startswith("chutes."):
            ours = isinstance(getattr(module, "__loader__", None), ChutesFinder)
            if ours != foreign:
                del sys.modules[name]


def _template_getattr(template: str) -> Any:
    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        templates.missing(template, name)

    return __getattr__
