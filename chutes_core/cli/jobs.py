"""`chutes jobs`: run a chute's jobs on the network, watch them, fetch what they leave.

Invariant: a run that did not complete makes `run --wait` and `watch` exit with 1 and say why.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from chutes_core.base.errors import Conflict
from chutes_core.cli import session
from chutes_core.cli.forward import forward
from chutes_core.cli.jobdata import arguments_of
from chutes_core.cli.jobfiles import fetch
from chutes_core.cli.options import (
    confirm,
    emit,
    json_option,
    note,
    pairs,
    table,
    yes_option,
)
from chutes_core.cli.warmup import name_of
from chutes_core.sdk.client import ApiClient

POLL_S = 2.0


@click.group()
def jobs() -> None:
    """Run a chute's jobs, watch them, reach their ports, and fetch what they leave."""


jobs.add_command(forward)


@jobs.command("run")
@click.argument("chute")
@click.argument("job")
@click.option("--arg", "pieces", multiple=True, metavar="NAME=VALUE", help="JSON, or a text.")
@click.option("--data", help="All arguments: JSON, @FILE, or - for stdin.")
@click.option("--timeout", type=int, help="Seconds; may only shorten the job's own limit.")
@click.option("--wait/--no-wait", help="Stay until it has ended; exit with 1 if not complete.")
@click.option("--output-dir", type=Path, help="Then fetch its files into this folder.")
@json_option
def run_job(
    chute: str,
    job: str,
    pieces: tuple[str, ...],
    data: str | None,
    timeout: int | None,
    wait: bool,
    output_dir: Path | None,
    as_json: bool,
) -> None:
    """Run JOB of CHUTE (name, id, user/name or MODULE:CHUTE) on the network."""
    body: dict[str, Any] = {
        "chute": name_of(chute),
        "job": job,
        "arguments": arguments_of(pieces, data),
    }
    with session.management() as client:
        made = client.call("POST", "/jobs/", body={**body, "timeout": timeout})
        note(f"job {made['job_id']} is {made['state']}; it may cost {made['held_rao']} rao")
        if wait or output_dir is not None:
            made = follow(client, made["job_id"])
            if output_dir is not None and made["state"] == "complete":
                fetch(client, made, output_dir)
    emit(made, as_json=as_json, text=shown(made))
    if wait or output_dir is not None:
        require_complete(made)


@jobs.command("list")
@click.option("--chute", help="Only runs of this chute.")
@click.option("--state", help="Only runs in this state, e.g. running.")
@click.option("--page", default=0, show_default=True)
@click.option("--limit", default=25, show_default=True)
@json_option
def list_jobs(chute: str | None, state: str | None, page: int, limit: int, as_json: bool) -> None:
    """List your runs, newest first."""
    params: dict[str, str | int | bool] = {"page": page, "limit": limit}
    params |= {name: value for name, value in (("chute", chute), ("state", state)) if value}
    with session.management() as client:
        answer = client.call("GET", "/jobs/", purpose="jobs", params=params)
    rows = [(one["job_id"], one["job"], one["state"], one["created_at"]) for one in answer["items"]]
    emit(answer, as_json=as_json, text=table(rows, ("JOB ID", "JOB", "STATE", "ASKED FOR")))


@jobs.command("get")
@click.argument("job_id")
@json_option
def get_job(job_id: str, as_json: bool) -> None:
    """Show one run: its state, its result, its files, what it cost."""
    with session.management() as client:
        found = read(client, job_id)
    emit(found, as_json=as_json, text=shown(found))


@jobs.command("watch")
@click.argument("job_id")
@json_option
def watch_job(job_id: str, as_json: bool) -> None:
    """Stay until a run has ended; exit with 1 if it is not complete."""
    with session.management() as client:
        found = follow(client, job_id)
    emit(found, as_json=as_json, text=shown(found))
    require_complete(found)


@jobs.command("cancel")
@click.argument("job_id")
@json_option
def cancel_job(job_id: str, as_json: bool) -> None:
    """Cancel a run; what it has run so far is charged."""
    with session.management() as client:
        found = client.call("POST", f"/jobs/{quote(job_id)}/cancel", body={})
    told = found["state"] if found["ended"] else "being cancelled"
    emit(found, as_json=as_json, text=f"job {job_id} is {told}")


@jobs.command("delete")
@click.argument("job_id")
@yes_option
@json_option
def delete_job(job_id: str, yes: bool, as_json: bool) -> None:
    """Forget an ended run and its files."""
    confirm(f"Delete job {job_id} and its files?", yes=yes)
    with session.management() as client:
        done = client.call("DELETE", f"/jobs/{quote(job_id)}", purpose="jobs")
    emit(done, as_json=as_json, text=f"job {job_id} is deleted")


@jobs.command("download")
@click.argument("job_id")
@click.option("--output-dir", type=Path, default=Path(), help="Default: this folder.")
@json_option
def download_job(job_id: str, output_dir: Path, as_json: bool) -> None:
    """Fetch the files that a run has left."""
    with session.management() as client:
        written = fetch(client, read(client, job_id), output_dir)
    document = {"job_id": job_id, "files": [str(path) for path in written]}
    emit(document, as_json=as_json, text="\n".join(map(str, written)) or "it has left no files")


def read(client: ApiClient, job_id: str) -> dict[str, Any]:
    """Return one run as the API shows it."""
    found: dict[str, Any] = client.call("GET", f"/jobs/{quote(job_id)}", purpose="jobs")
    return found


def follow(
    client: ApiClient, job_id: str, *, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Return a run once it has ended; tell each new state on the way."""
    told = ""
    while True:
        found = read(client, job_id)
        if found["state"] != told:
            told = found["state"]
            note(f"job {job_id} is {told}")
        if found["ended"]:
            return found
        sleep(POLL_S)


def require_complete(found: dict[str, Any]) -> None:
    """Fail where a run has not completed.

    Raises:
        Conflict: ``job_not_complete``.
    """
    if found["state"] != "complete":
        raise Conflict(
            "job_not_complete",
            f"the job ended with {found['state']}: {found['text'] or found['reason']}",
            hint=f"chutes jobs get {found['job_id']} shows what its instance said",
            http_status=200,
        )


def shown(found: dict[str, Any]) -> str:
    """Return a run as lines for people."""
    lines: list[tuple[str, Any]] = [("job", found["job_id"]), ("state", found["state"])]
    if found["reason"]:
        lines += [("why", found["text"]), ("reason", found["reason"])]
    lines += [("detail", found["detail"] or None), ("instance", found["instance_id"])]
    if found.get("result") is not None:
        lines.append(("result", json.dumps(found["result"])))
    lines += [("file", f"{file['name']} ({file['size_bytes']} bytes)") for file in found["files"]]
    if not found["ended"]:
        lines += [("port", _reached(found, port)) for port in found.get("ports", [])]
    else:
        lines += [("ran", f"{found['ran_seconds']} s"), ("charged", f"{found['charge_rao']} rao")]
    return pairs(lines)


def _reached(found: dict[str, Any], port: dict[str, Any]) -> str:
    """Return how a port is reached while the run is running."""
    how = f"chutes jobs forward {found['job_id']} {port['name']}"
    at = f"; {port['path']}" if port["path"] else ""
    return f"{port['name']} ({port['proto']} {port['port']}): {how}{at}"
