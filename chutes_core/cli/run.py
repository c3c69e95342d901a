"""`chutes run module:chute --dev`: serve a chute on this machine, as the runner would.

With --dev-job-method it runs a job instead.
Start-up hooks run first; with CHUTES_DEV_URL=http://host:port other Python code calls this chute
instead of the deployed one. It works in the chute's container as well as on a laptop. Invariant:
nothing is attested or metered here, and the address is a loopback one unless another is asked for.
"""

import asyncio
import json
import os
import socket
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from chutes_core.base.errors import Conflict, Invalid, NotFound
from chutes_core.cli.options import emit, json_option, note, pairs
from chutes_core.cli.serving import listen, require_server, serve_chute
from chutes_core.sdk.chute import Chute
from chutes_core.sdk.job import JobResult
from chutes_core.sdk.loader import load_chute


@click.command()
@click.argument("chute_ref", metavar="MODULE:CHUTE")
@click.option("--dev/--no-dev", help="Serve it locally, for development.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, help="0 for any free one.")
@click.option("--fd", type=int, default=None, hidden=True, help="A socket that listens already.")
@click.option("--dev-job-method", "job", help="Run this job once, instead of serving.")
@click.option("--dev-job-data-path", "data", type=Path, help="JSON file with its arguments.")
@click.option("--output-dir", type=Path, help="Where the job's files go; default: a new folder.")
@click.option("--debug/--no-debug", help="Log every request.")
@json_option
def run(
    chute_ref: str,
    dev: bool,
    host: str,
    port: int,
    fd: int | None,
    job: str | None,
    data: Path | None,
    output_dir: Path | None,
    debug: bool,
    as_json: bool,
) -> None:
    """Serve a chute on this machine, or run one of its jobs."""
    if not dev:
        raise Invalid(
            "dev_only",
            "a chute outside an attested instance runs for development only",
            hint="add --dev",
        )
    os.environ["CHUTES_EXECUTION_CONTEXT"] = "REMOTE"
    chute = load_chute(chute_ref)
    if job is not None:
        _print(run_job(chute, job, _arguments(data), output_dir), as_json=as_json)
        return
    require_server()
    listener = listen(host, port) if fd is None else socket.socket(fileno=fd)
    address = f"http://{host}:{listener.getsockname()[1]}"
    paths = sorted({path for c in chute.cords for path in (c.path, c.public_api_path) if path})
    shown = f"serving {chute.name} at {address}: {' '.join(paths)}"
    emit({"url": address, "paths": paths}, as_json=as_json, text=shown)
    serve_chute(chute, listener, debug=debug)


def run_job(
    chute: Chute, name: str, arguments: dict[str, Any], output_dir: Path | None
) -> tuple[JobResult, Path]:
    """Run one job between the chute's hooks; return how it ended and where its files lie.

    Raises:
        NotFound: ``no_such_job``. Conflict: ``job_failed``.
    """
    found = [job for job in chute.jobs if job.name == name]
    if not found:
        names = ", ".join(job.name for job in chute.jobs) or "none"
        raise NotFound("no_such_job", f"there is no job {name!r}", hint=f"there are: {names}")
    folder = output_dir or Path(tempfile.mkdtemp(prefix="chutes-job-"))
    folder.mkdir(parents=True, exist_ok=True)

    for port in found[0].ports:
        note(f"its port {port.name} ({port.proto}) is port {port.port} of this machine")

    async def whole() -> JobResult:
        await chute.startup()
        try:
            return await found[0].run(folder, **arguments)
        finally:
            await chute.shutdown()

    result = asyncio.run(whole())
    if result.status != "complete":
        raise Conflict(
            "job_failed",
            f"job {name!r} ended with {result.status}: {result.detail}",
            hint="what it printed stands above",
        )
    return result, folder


def _arguments(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(
            "bad_job_data", f"{path} is no JSON: {error}", hint="write a JSON object"
        ) from error
    if not isinstance(document, dict):
        raise Invalid("bad_job_data", f"{path} is no JSON object", hint='e.g. {"steps": 3}')
    return document


def _print(ended: tuple[JobResult, Path], *, as_json: bool) -> None:
    result, folder = ended
    document = json.loads(json.dumps({**asdict(result), "output_dir": str(folder)}, default=str))
    lines = [("status", result.status), ("result", json.dumps(result.result, default=str))]
    lines += [("file", str(folder / name)) for name in result.files]
    emit(document, as_json=as_json, text=pairs(lines))
