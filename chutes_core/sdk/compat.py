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

_SDK = "chutes_core.sdk"
_OURS = "chutes_core.sdk.templates"
_TEMPLATES = "chutes.chute.template"
EVERYTHING = ("*",)  # every public name of the module

ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "chutes": {},
    "chutes.image": {f"{_SDK}.image": ("Image",)},
    "chutes.image.standard": {f"{_OURS}.vllm": ("VLLM",)},
    "chutes.image.standard.vllm": {f"{_OURS}.vllm": ("VLLM",)},
    "chutes.image.standard.sglang": {f"{_OURS}.sglang": ("SGLANG",)},
    "chutes.image.standard.diffusion": {f"{_OURS}.diffusion": ("DIFFUSION",)},
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
    _TEMPLATES: {f"{_OURS}.vllm": ("build_vllm_chute",)},
    f"{_TEMPLATES}.vllm": {f"{_OURS}.vllm": EVERYTHING},
    f"{_TEMPLATES}.sglang": {f"{_OURS}.sglang": EVERYTHING},
    f"{_TEMPLATES}.embedding": {f"{_OURS}.embedding": EVERYTHING},
    f"{_TEMPLATES}.diffusion": {f"{_OURS}.diffusion": EVERYTHING},
    "chutes.exception": {f"{_SDK}.context": ("DuplicatePath", "InvalidPath")},
    "chutes.util": {},
    "chutes.util.context": {f"{_SDK}.context": ("is_local", "is_remote")},
}


class ChutesFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules of ALIASES."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for ``chutes…``, None for everything else."""
        if fullname != "chutes" and not fullname.startswith("chutes."):
            return None
        if fullname not in ALIASES:
            raise ModuleNotFoundError(
                f"{fullname!r} is not part of this SDK; it has {', '.join(sorted(ALIASES))}",
                name=fullname,
            )
        is_package = any(name.startswith(f"{fullname}.") for name in ALIASES)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        """Fill a fresh module with the names of our SDK."""
        name = module.__name__
        exported: list[str] = []
        for source, names in ALIASES[name].items():
            real = importlib.import_module(source)
            if names == EVERYTHING:
                names = tuple(one for one in vars(real) if not one.startswith("_"))
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
