"""`chutes dev module:chute`: serve a chute on this machine, without Docker, and again after edits.

A child (`chutes run --dev`) loads the file and serves it; this process holds the socket, looks at
the Python files of the folder, and starts another child when one has changed. Invariant: the
address stays the same over all restarts, calls between two children wait in the socket's queue,
and a file that does not load leaves the command waiting for the next edit.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from chutes_core.base.errors import Invalid
from chutes_core.cli.options import json_option, note
from chutes_core.cli.serving import listen, require_server
from chutes_core.sdk.loader import locate

LOOK_S = 0.4
STOP_S = 15.0
MAX_FILES = 5_000
_SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "site-packages"})

# Not `-m`, which would put this folder first among the places that modules come from.
_START = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from chutes_core.cli.main import main; sys.exit(main(sys.argv[1:]))"
)

Stamp = dict[str, tuple[int, int]]


@click.command()
@click.argument("chute_ref", metavar="MODULE:CHUTE")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, help="0 for any free one.")
@click.option("--reload/--no-reload", default=True, help="Serve anew when a file has changed.")
@click.option("--debug/--no-debug", help="Log every request.")
@json_option
def dev(chute_ref: str, host: str, port: int, reload: bool, debug: bool, as_json: bool) -> None:
    """Serve a chute here, without Docker, and load it again when its files change."""
    file, _ = locate(chute_ref)
    require_server()
    listener = listen(host, port)
    address = f"http://{host}:{listener.getsockname()[1]}"
    if as_json:
        click.echo(json.dumps({"url": address, "reload": reload}))
    note(f"{address}  (CHUTES_DEV_URL={address} makes Python code call this chute)")
    command = [sys.executable, "-c", _START, "run", chute_ref, "--dev"]
    command += ["--host", host, "--fd", str(listener.fileno())] + (["--debug"] if debug else [])
    os.environ.setdefault("PYTHONUNBUFFERED", "1")

    def start() -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL if as_json else None
        return subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=quiet)

    signal.signal(signal.SIGTERM, _interrupt)
    with listener:
        code = serve(start, lambda: stamps(file.parent), reload=reload)
    if code:
        raise Invalid("startup_failed", "the chute did not start", hint="see the error above")


def serve(
    start: Callable[[], subprocess.Popen[bytes]],
    look: Callable[[], Stamp],
    *,
    reload: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Run children until one ends without ``reload``; return its exit code.

    Args:
        start: starts a child.
        look: returns what the files look like now.
        reload: whether a change of the files, or the end of a child, leads to another.
        sleep: waits between two looks.
    """
    seen = look()
    child = start()
    told = False
    try:
        while True:
            sleep(LOOK_S)
            ended = child.poll() is not None
            if ended and not reload:
                return child.returncode
            if ended and not told:
                note("waiting for a change of the files")
                told = True
            now = look()
            if not reload or now == seen:
                continue
            note("changed: " + ", ".join(changed(seen, now)))
            stop(child)
            seen, told = now, False
            child = start()
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a child, by force where it does not obey."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def stamps(folder: Path) -> Stamp:
    """Return time and size of each Python file in and below a folder."""
    found: Stamp = {}
    for path in _python_files(folder):
        try:
            status = path.stat()
        except OSError:
            continue  # just renamed or deleted: the next look sees it
        found[str(path.relative_to(folder))] = (status.st_mtime_ns, status.st_size)
        if len(found) >= MAX_FILES:
            break
    return found


def changed(before: Stamp, after: Stamp) -> list[str]:
    """Return the names of files that are new, gone or different."""
    names = before.keys() | after.keys()
    return sorted(name for name in names if before.get(name) != after.get(name))


def _python_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if n not in _SKIPPED and not n.startswith("."))
        yield from (Path(parent) / name for name in sorted(names) if name.endswith(".py"))


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt
