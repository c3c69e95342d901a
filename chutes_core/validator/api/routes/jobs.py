"""Runs of jobs: asked for, watched, cancelled, deleted, and what they have left.

A run is its user's own: whoever may call a chute may run its jobs, pays for them, and nobody else
sees them, the chute's owner neither.
"""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import FileResponse

from chutes_core.base.errors import NotFound
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.api.body import bounded_route
from chutes_core.validator.api.deps import Guards
from chutes_core.validator.api.forms import RunForm
from chutes_core.validator.api.openapi import PART
from chutes_core.validator.api.pages import AskedPage
from chutes_core.validator.api.services import Services
from chutes_core.validator.api.views import when
from chutes_core.validator.domain.jobs import JOB_REASONS, JobPort, JobRun, JobState
from chutes_core.validator.jobs.service import JobAsked, no_file

MAX_BODY_BYTES = 1024 * 1024  # 256 KiB of arguments, escaped in JSON
_DOWNLOAD = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}


def build_router(services: Services, guards: Guards) -> APIRouter:
    """Return the routes under /jobs."""
    router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=bounded_route(MAX_BODY_BYTES))
    user = Annotated[Principal, Depends(guards.user("jobs"))]
    jobs = services.jobs

    def own(caller: Principal, job_id: str) -> JobRun:
        job = jobs.get(caller, job_id)
        caller.require("chutes", "invoke", job.chute_id)
        return job

    def chute_id_of(caller: Principal, reference: str) -> str:
        try:
            return services.chutes.get(caller.account, reference).chute_id
        except NotFound:
            return reference  # of a deleted chute; its runs are kept

    @router.post("/", status_code=202)
    def run_job(caller: user, form: RunForm) -> dict[str, Any]:
        chute = services.chutes.get(caller.account, form.chute)
        caller.require("chutes", "invoke", chute.chute_id)
        asked = JobAsked(form.job, form.arguments, form.timeout)
        return job_view(jobs.start(caller, chute, asked))

    @router.get("/")
    def list_jobs(
        caller: user,
        asked: AskedPage,
        chute: Annotated[str | None, Query(max_length=400)] = None,
        state: JobState | None = None,
    ) -> dict[str, Any]:
        only = None if chute is None else chute_id_of(caller, chute)
        total, found = jobs.list(
            caller, chute_id=only, state=state, offset=asked.first, limit=asked.limit
        )
        return asked.cut(total, found, job_view)

    @router.get("/{job_id}")
    def read_job(caller: user, job_id: str) -> dict[str, Any]:
        job = own(caller, job_id)
        return job_view(job) | {"arguments": json.loads(job.arguments), "result": _result(job)}

    @router.post("/{job_id}/cancel")
    def cancel_job(caller: user, job_id: str) -> dict[str, Any]:
        own(caller, job_id)
        return job_view(jobs.cancel(caller, job_id))

    @router.delete("/{job_id}")
    def delete_job(caller: user, job_id: str) -> dict[str, Any]:
        own(caller, job_id)
        jobs.delete(caller, job_id)
        return {"job_id": job_id, "deleted": True}

    @router.get("/{job_id}/files/{name:path}", response_class=FileResponse, responses=PART)
    def read_file(caller: user, job_id: str, name: str) -> FileResponse:
        own(caller, job_id)
        file, path = jobs.file(caller, job_id, name)
        try:
            found = path.stat()
        except FileNotFoundError as error:  # the run is being deleted
            raise no_file(name) from error
        return FileResponse(
            path,
            stat_result=found,
            media_type="application/octet-stream",
            filename=file.name.rpartition("/")[2],
            headers=_DOWNLOAD | {"ETag": f'"{file.sha256}"'},
        )

    return router


def job_view(job: JobRun) -> dict[str, Any]:
    """Return a run as its user sees it; amounts are integers of rao."""
    return {
        "job_id": job.job_id,
        "chute_id": job.chute_id,
        "job": job.name,
        "state": job.state.value,
        "ended": not job.open,
        "reason": job.reason,
        "text": JOB_REASONS.get(job.reason, job.reason),
        "detail": job.detail,
        "cancel_asked": job.cancel_asked,
        "version": job.version or None,
        "instance_id": job.launch_id or None,
        "timeout": job.limit_s,
        "created_at": when(job.created_at_s),
        "started_at": _moment(job.started_at_us),
        "ended_at": None if job.open else _moment(job.ended_at_us),
        "ran_seconds": round(job.usage_us / 1_000_000, 3),
        "rao_per_hour": job.rate.rao_per_hour,
        "held_rao": job.held_rao,
        "charge_rao": job.charge_rao,
        "ports": [_port_view(job, port) for port in job.ports],
        "files": [
            {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}
            for file in job.files
        ],
    }


def _port_view(job: JobRun, port: JobPort) -> dict[str, Any]:
    """Return a port with the path that it is called at (http alone) and its tunnel's."""
    place = f"/jobs/{job.job_id}"
    return {
        "name": port.name,
        "port": port.port,
        "proto": port.proto,
        "path": f"{place}/ports/{port.name}/" if port.proto == "http" else None,
        "tunnel": f"{place}/tunnels/{port.name}",
    }


def _moment(at_us: int) -> str | None:
    return when(at_us // 1_000_000) if at_us else None


def _result(job: JobRun) -> Any:
    return json.loads(job.result) if job.result else None
