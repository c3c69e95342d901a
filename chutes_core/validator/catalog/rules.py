"""What a chute must look like to be deployed. Pure; the first broken rule is named.

Patterns and bounds: shared/PUBLIC_API, Chute files. The cord pattern there,
`^(/[a-z0-9_]+[a-z0-9-_]*)+$`, is written here without its ambiguity (a long bad path would take
exponential time): the same paths match.
"""

import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from chutes_core.base.errors import Invalid, TooLarge
from chutes_core.base.gpus import GPU_CLASSES
from chutes_core.validator.catalog.schemas import check_schema
from chutes_core.validator.domain.chutes import Cord, Selector
from chutes_core.validator.domain.jobs import JobSpec
from chutes_core.wire.launch import MAX_CODE_BYTES

MAX_CORDS = 64
MAX_JOBS = 16
MAX_PORTS = 8
MIN_PORT, MAX_PORT = 1_024, 65_535
PROTOS = ("tcp", "http")
MIN_JOB_S, MAX_JOB_S = 30, 86_400
MAX_SCHEMA_BYTES = 256 * 1024
MAX_README_BYTES = 64 * 1024
MAX_TAGLINE_LENGTH = 1024
MAX_PATH_LENGTH = 200
MAX_CONCURRENCY = 1024
MAX_INSTANCES = 100
MAX_SHUTDOWN_AFTER_S = 7 * 24 * 3600
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}")
_PATH = re.compile(r"(/[a-z0-9_][a-z0-9_-]*)+")
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,195}\.py")
_PORT_NAME = re.compile(r"[a-z]+[a-z0-9-]{0,31}")
_TEMPLATE = re.compile(r"[a-z0-9_-]{1,32}")


@dataclass(frozen=True)
class ChuteDraft:
    """What a developer wants to deploy; ``image`` is an id, user/name:tag or name:tag."""

    name: str
    image: str
    filename: str
    ref_str: str
    code: str
    cords: tuple[Cord, ...]
    selector: Selector
    tagline: str = ""
    readme: str = ""
    public: bool = False
    standard_template: str | None = None
    concurrency: int = 1
    max_instances: int = 1
    scaling_threshold_percent: int = 75
    shutdown_after_s: int = 300
    allow_external_egress: bool = False
    jobs: tuple[JobSpec, ...] = ()


def check_draft(draft: ChuteDraft) -> None:
    """Check everything about a draft that needs no store.

    Raises:
        Invalid: with the code of the first broken rule.
        TooLarge: ``code_too_large`` or ``schemas_too_large``.
    """
    _check_texts(draft)
    _check_numbers(draft)
    check_selector(draft.selector)
    if draft.cords or not draft.jobs:
        check_cords(draft.cords)
    check_jobs(draft.jobs)


def check_selector(selector: Selector) -> None:
    """Check a selector's bounds, its GPU names, and that some GPU fits.

    Raises:
        Invalid: ``bad_selector``, ``unknown_gpu`` or ``no_gpu_fits``.
    """
    limit = selector.max_hourly_price_usd_micros
    if not 1 <= selector.gpu_count <= 8:
        raise Invalid("bad_selector", "gpu_count must be from 1 to 8")
    if not 16 <= selector.min_vram_gb_per_gpu <= 140:
        raise Invalid("bad_selector", "min_vram_gb_per_gpu must be from 16 to 140")
    if limit is not None and limit <= 0:
        raise Invalid("bad_selector", "max_hourly_price_per_gpu must be positive")
    for name in (*(selector.include or ()), *selector.exclude):
        if name not in GPU_CLASSES:
            raise Invalid(
                "unknown_gpu", f"there is no GPU {name[:40]!r}", hint="names: GET /pricing"
            )
    selector.admissible()


def check_cords(cords: Sequence[Cord]) -> None:
    """Check paths, methods and schemas of a chute's cords.

    Raises:
        Invalid: ``no_cords``, ``too_many_cords``, ``bad_cord`` or ``cord_twice``.
        TooLarge: ``schemas_too_large`` or ``schema_too_deep``.
    """
    if not cords:
        raise Invalid("no_cords", "the chute has no cords", hint="decorate a function: @chute.cord")
    if len(cords) > MAX_CORDS:
        raise Invalid("too_many_cords", f"a chute has at most {MAX_CORDS} cords")
    paths: set[str] = set()
    public: set[tuple[str, str, bool]] = set()
    size = 0
    for cord in cords:
        _check_cord(cord)
        for what in ("input_schema", "output_schema", "minimal_input_schema"):
            if (schema := getattr(cord, what)) is not None:
                check_schema(schema, f"{what} of cord {cord.function}")
        size += len(json.dumps([cord.input_schema, cord.output_schema, cord.minimal_input_schema]))
        if cord.path in paths:
            raise Invalid("cord_twice", f"two cords have the path {cord.path}")
        paths.add(cord.path)
        if cord.public_api_path is not None:
            # A stream and a plain cord may share a route: the body's `stream` chooses.
            route = (cord.public_api_method or "POST", cord.public_api_path, cord.stream)
            if route in public:
                raise Invalid("cord_twice", f"two cords are reached by {route[0]} {route[1]}")
            public.add(route)
    if size > MAX_SCHEMA_BYTES:
        raise TooLarge("schemas_too_large", f"the cords' schemas are over {MAX_SCHEMA_BYTES} bytes")


def check_jobs(jobs: Sequence[JobSpec]) -> None:
    """Check names, time limits and ports of a chute's jobs.

    Raises:
        Invalid: ``too_many_jobs_declared``, ``bad_job``, ``job_twice`` or ``not_supported``.
    """
    if len(jobs) > MAX_JOBS:
        raise Invalid(
            "too_many_jobs_declared", f"a chute has at most {MAX_JOBS} jobs", hint="split the chute"
        )
    if len({job.name for job in jobs}) != len(jobs):
        raise Invalid("job_twice", "two jobs have one name", hint="give each its own function name")
    for job in jobs:
        _check_job(job)


def _check_job(job: JobSpec) -> None:
    hint = "see @chute.job(…): a time limit of 30 to 86400 s, or none"
    if not job.name.isidentifier() or not job.name.isascii() or len(job.name) > 128:
        raise Invalid("bad_job", f"{job.name[:40]!r} is no function name", hint=hint)
    if job.timeout_s is not None and not MIN_JOB_S <= job.timeout_s <= MAX_JOB_S:
        raise Invalid("bad_job", f"the time limit of job {job.name} does not fit", hint=hint)
    _check_ports(job)


def _check_ports(job: JobSpec) -> None:
    ports = job.ports
    hint = f"{MIN_PORT} to {MAX_PORT}, tcp or http, each name and number once, {MAX_PORTS} at most"
    names, numbers = {port.name for port in ports}, {port.port for port in ports}
    if len(ports) > MAX_PORTS or not len(names) == len(numbers) == len(ports):
        raise Invalid("bad_job", f"the ports of job {job.name} do not fit", hint=hint)
    for port in ports:
        if port.proto == "udp":
            raise Invalid(
                "not_supported",
                f"port {port.name[:40]} of job {job.name} is udp, which no relay carries",
                hint="declare it as tcp or http",
            )
        known = _PORT_NAME.fullmatch(port.name) and port.proto in PROTOS
        if not known or not MIN_PORT <= port.port <= MAX_PORT:
            raise Invalid(
                "bad_job", f"port {port.name[:40]!r} of job {job.name} does not fit", hint=hint
            )


def _check_cord(cord: Cord) -> None:
    if not cord.function.isidentifier() or len(cord.function) > 128:
        raise Invalid("bad_cord", f"{cord.function[:40]!r} is no function name")
    for path in (cord.path, cord.public_api_path):
        if path is not None and (len(path) > MAX_PATH_LENGTH or not _PATH.fullmatch(path)):
            raise Invalid(
                "bad_cord",
                f"the path {path[:60]!r} of cord {cord.function} does not fit",
                hint="segments of a-z 0-9 _ -, each after a slash",
            )
    for method in (cord.method, cord.public_api_method):
        if method is not None and method not in METHODS:
            raise Invalid("bad_cord", f"cord {cord.function} has no known method")
    kind = cord.output_content_type
    if kind is not None and (len(kind) > 100 or not kind.isascii() or not kind.isprintable()):
        raise Invalid("bad_cord", f"cord {cord.function} has no usable output_content_type")


def _check_texts(draft: ChuteDraft) -> None:
    if not _NAME.fullmatch(draft.name) or _is_uuid(draft.name):
        raise Invalid(
            "bad_chute_name",
            "the chute's name does not fit",
            hint="1 to 128 of: letters, digits, - _ . /",
        )
    if not _FILENAME.fullmatch(draft.filename):
        raise Invalid("bad_filename", "filename must be the plain name of a .py file")
    if len(draft.ref_str) > 200 or not _REFERENCE.fullmatch(draft.ref_str):
        raise Invalid("bad_ref_str", "ref_str must read module:variable")
    if len(draft.code.encode()) > MAX_CODE_BYTES:
        raise TooLarge("code_too_large", f"the code is over {MAX_CODE_BYTES} bytes")
    if not draft.code.strip():
        raise Invalid("no_code", "the code is empty")
    if len(draft.tagline) > MAX_TAGLINE_LENGTH or len(draft.readme.encode()) > MAX_README_BYTES:
        raise TooLarge("readme_too_large", "the tagline or the readme is too long")
    if draft.standard_template is not None and not _TEMPLATE.fullmatch(draft.standard_template):
        raise Invalid("bad_template", "standard_template does not fit")


def _check_numbers(draft: ChuteDraft) -> None:
    bounds = (
        ("concurrency", draft.concurrency, MAX_CONCURRENCY),
        ("max_instances", draft.max_instances, MAX_INSTANCES),
        ("scaling_threshold", draft.scaling_threshold_percent, 100),
        ("shutdown_after_seconds", draft.shutdown_after_s, MAX_SHUTDOWN_AFTER_S),
    )
    for what, value, highest in bounds:
        if not 1 <= value <= highest:
            raise Invalid("out_of_range", f"{what} is not inside its range", highest=highest)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
