"""Compile the modules that every call goes through (mypyc): the same sources, less CPU a call.

    python scripts/compile.py             build the extension modules beside their sources
    python scripts/compile.py --remove    run from the sources again
    python scripts/compile.py --check     say what runs: compiled, interpreted, or stale (exit 1)

Exit codes: 0 done, 1 failed or stale, 3 this machine lacks what a build needs (it says what).

It takes a minute and a C compiler (Debian: gcc) and is optional: without it the same modules run
interpreted. A change of one of them asks for another build; a validator does not start on modules
that are not those of its sources (chutes_core/base/compiled.py). Nothing is written but extension
modules, their record and a temporary folder; a build that fails changes nothing.
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chutes_core.base import compiled  # noqa: E402
from chutes_core.base.errors import ChutesError  # noqa: E402

GATEWAY = "validator/gateway"
# All that an ordinary call runs through. Calls between compiled modules cost least, so that a small
# module in the middle of the path pays, too; what runs once in a while is left out.
# fmt: off
_GATEWAY = (
    "admission", "affinity", "aliases", "body", "breaker", "buckets", "call", "demand", "headers",
    "holds", "journal", "limits", "metering", "metrics", "pool", "records", "routing",
    "told", "usage",
)
_PLANE = (
    "answers", "fast", "fast_call", "fast_ends", "fresh", "heads", "http", "link", "parts", "plan",
    "reader", "request", "server",
)
# fmt: on
SOURCES = (
    *("base/clock.py", "base/units.py", "validator/domain/money.py"),
    *(f"wire/{name}.py" for name in ("frames", "sealing", "together")),
    *(f"{GATEWAY}/{name}.py" for name in _GATEWAY),
    *(f"{GATEWAY}/plane/{name}.py" for name in _PLANE),
    *(f"{GATEWAY}/workers/{name}.py" for name in ("purses", "rates", "slots")),
)
LACKING = 3
GROUP = "chutes_core.compiled"  # the shared library that holds all of them


def main() -> int:
    """Do what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--remove", action="store_true")
    what.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.check:
        return _check()
    if given.remove:
        remove()
        return 0
    return _build()


def remove() -> None:
    """Delete all extension modules, of whatever interpreter, and last their record."""
    for name in compiled.modules(ending=".so"):
        (compiled.PACKAGE / name).unlink()
    (compiled.PACKAGE / compiled.RECORD).unlink(missing_ok=True)


def _check() -> int:
    try:
        print("compiled" if compiled.check() else "interpreted")
    except ChutesError as error:
        print(f"stale: {error.message} ({compiled.REMEDY})", file=sys.stderr)
        return 1
    return 0


def _build() -> int:
    if lacking := _lacking():
        print(f"there is no {lacking}", file=sys.stderr)
        return LACKING
    begun, sources = time.monotonic(), compiled.digests(SOURCES)
    print(f"compiling {len(SOURCES)} modules, which takes about a minute", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="chutes-compile-") as folder:
        if not _compile(Path(folder)):
            return 1
        built = Path(folder) / "lib" / "chutes_core"
        names = compiled.modules(built)
        remove()
        # The record first: what a kill leaves behind is then told as stale, never taken for whole.
        record = {"sources": sources, "modules": compiled.digests(names, built)}
        text = json.dumps({compiled.suffix(): record}, indent=1)
        (compiled.PACKAGE / compiled.RECORD).write_text(text + "\n", "utf-8")
        for name in names:
            shutil.move(built / name, compiled.PACKAGE / name)
    if not compiled.check():
        print("the compiler wrote no modules for this interpreter", file=sys.stderr)
        return 1
    print(f"compiled in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 0


def _lacking() -> str | None:
    """Name what a build needs and this machine does not have."""
    if shutil.which("cc") is None:
        return "C compiler (Debian: apt-get install gcc libc6-dev)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "Python.h of this interpreter (Debian: apt-get install python3-dev)"
    if importlib.util.find_spec("mypyc") is None:
        return "mypyc in this environment (scripts/setup.sh validator,compile)"
    return None


def _compile(folder: Path) -> bool:
    """Build everything into a folder, in a process of its own; tell whether it succeeded."""
    paths = [str(Path("chutes_core") / name) for name in SOURCES]
    script = folder / "setup.py"
    script.write_text(
        "from mypyc.build import mypycify\n"
        "from setuptools import setup\n"
        f"setup(name='x', packages=[], ext_modules=mypycify({paths!r}, opt_level='3',"
        f" debug_level='0', group_name={GROUP!r},"
        f" target_dir={str(folder / 'c')!r}))\n",
        "utf-8",
    )
    command = [
        *(sys.executable, str(script), "--quiet", "build_ext", "--parallel", "4"),
        *("--build-temp", str(folder / "o"), "--build-lib", str(folder / "lib")),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:] + done.stderr[-4000:], file=sys.stderr)
        print("nothing was changed", file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
