"""Loading a chute file: from a reference or from code text to a Chute.

The CLI loads files (`module:variable`), the runner loads the code that came with the launch.
Invariant: what the file raises becomes a typed error that names the failing line, and a chute file
never replaces an importable module: it is registered under a name of its own.
"""

import importlib.util
import linecache
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from chutes_core.base.errors import ChutesError, Invalid, NotFound
from chutes_core.sdk import compat
from chutes_core.sdk.chute import Chute

_MODULE_PREFIX = "chute_file_"


@dataclass(frozen=True)
class ChuteSource:
    """A chute file as it travels: its text, its file name, and `module:variable`."""

    code: str
    filename: str
    ref_str: str


class ChuteFileError(Invalid):
    """The chute file itself failed; ``line`` (from 1; 0: unknown) and ``source_line`` say where."""

    def __init__(
        self, code: str, message: str, filename: str, line: int, source_line: str, hint: str = ""
    ) -> None:
        place = f"{filename}, line {line}: {source_line}" if line else filename
        super().__init__(code, f"{message} ({place})", hint=hint, line=line)
        self.line = line
        self.source_line = source_line


def load_chute(ref: str, directory: Path | None = None) -> Chute:
    """Load ``module:variable`` or ``path/file.py:variable`` from a folder (the current one).

    Raises:
        Invalid: the reference or the file is wrong (ChuteFileError names the line).
        NotFound: there is no such file or variable.
    """
    return load_file(ref, directory)[1]


def load_file(ref: str, directory: Path | None = None) -> tuple[ChuteSource, Chute]:
    """Load a chute file together with its text; modules beside the file can be imported.

    Raises:
        Invalid: the reference or the file is wrong (ChuteFileError names the line).
        NotFound: there is no such file or variable.
    """
    source = read_source(ref, directory)
    folder = str(locate(ref, directory)[0].parent.resolve())
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that no file beside the chute shadows a library
    return source, load_code(source.code, source.filename, source.ref_str)


def read_source(ref: str, directory: Path | None = None) -> ChuteSource:
    """Return the text behind a reference without running it.

    Raises:
        Invalid: ``bad_ref``. NotFound: ``chute_file_missing``.
    """
    path, variable = locate(ref, directory)
    try:
        code = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound("chute_file_missing", f"{path} cannot be read: {error}") from error
    return ChuteSource(code, path.name, f"{path.stem}:{variable}")


def locate(ref: str, directory: Path | None = None) -> tuple[Path, str]:
    """Return the file and the variable that a reference names.

    Raises:
        Invalid: ``bad_ref``. NotFound: ``chute_file_missing``.
    """
    module, colon, variable = ref.rpartition(":")
    if not colon or not module or not variable.isidentifier():
        raise Invalid(
            "bad_ref",
            f"{ref!r} names no chute",
            hint="write file:variable, e.g. my_chute:chute for `chute = Chute(…)` in my_chute.py",
        )
    folder = Path.cwd() if directory is None else directory
    relative = (
        Path(module) if module.endswith(".py") else Path(*module.split(".")).with_suffix(".py")
    )
    path = folder / relative
    if not path.is_file():
        raise NotFound(
            "chute_file_missing",
            f"there is no file {relative} in {folder}",
            hint="run the command in the folder of the chute file",
        )
    return path, variable


def load_code(code: str, filename: str, ref_str: str) -> Chute:
    """Run the text of a chute file and return the chute that ``ref_str`` names.

    Installs the finder of sdk/compat.py, so that ``import chutes`` is our SDK.

    Raises:
        ChuteFileError: chute_syntax, chute_file_failed, or the code of an error of this SDK.
        NotFound: ``chute_variable_missing``. Invalid: ``bad_ref`` or ``not_a_chute``.
    """
    _, colon, variable = ref_str.rpartition(":")
    if not colon or not variable.isidentifier():
        raise Invalid("bad_ref", f"{ref_str!r} names no variable of a chute file")
    compat.install()
    module = _execute(code, filename)
    value = getattr(module, variable, None)
    chute = getattr(value, "chute", value)  # a ChutePack holds its chute
    if isinstance(chute, Chute):
        return chute
    found = [name for name, item in vars(module).items() if isinstance(item, Chute)]
    hint = f"chutes in this file: {', '.join(found)}" if found else "the file makes no Chute(…)"
    if value is None:
        raise NotFound(
            "chute_variable_missing", f"{filename} has no variable {variable!r}", hint=hint
        )
    raise Invalid("not_a_chute", f"{variable!r} in {filename} is no Chute", hint=hint)


def _execute(code: str, filename: str) -> ModuleType:
    name = _MODULE_PREFIX + Path(filename).stem.replace("-", "_")
    # A name that no file has: tracebacks then show the text that really ran.
    shown = f"<chute {filename}>"
    linecache.cache[shown] = (len(code), None, code.splitlines(keepends=True), shown)
    try:
        compiled = compile(code, shown, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 0
        message = getattr(error, "msg", None) or str(error)
        raise ChuteFileError("chute_syntax", message, filename, line, _line(code, line)) from error
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = filename
    sys.modules[name] = module  # pydantic and dataclasses look hints up there
    try:
        exec(compiled, module.__dict__)  # noqa: S102 - running the developer's file is the point
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failure(error, code, filename, shown) from error
    return module


def _failure(error: BaseException, code: str, filename: str, shown: str) -> ChuteFileError:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == shown]
    line = (frames[-1].lineno or 0) if frames else 0
    where = (filename, line, _line(code, line))
    if isinstance(error, ChutesError):
        return ChuteFileError(error.code, error.message, *where, hint=error.hint)
    hint = ""
    if isinstance(error, ImportError):
        hint = "import what only the image has inside a hook or cord, not at the top of the file"
    return ChuteFileError(
        "chute_file_failed", f"{type(error).__name__}: {error}", *where, hint=hint
    )


def _line(code: str, line: int) -> str:
    lines = code.splitlines()
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""
