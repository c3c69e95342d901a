"""The operator's commands: `doctor` and `status` of `python neurons/miner.py`.

Both only read. Exit codes: doctor 0 all is well, 4 a check failed; status 0 the miner answered,
5 it does not run; 2 a wrong setting, for both.
"""

import asyncio
import http.client
import json
from collections.abc import Iterable

from chutes_core.base.errors import NotFound, ProtocolError, Unavailable
from chutes_core.chain.client import ChainClient
from chutes_core.miner.app import Connect
from chutes_core.miner.doctor.examine import examine
from chutes_core.miner.doctor.report import Report
from chutes_core.miner.host import remembered_ports
from chutes_core.miner.operator_http import TOKEN_FILE
from chutes_core.miner.settings import MinerSettings
from chutes_core.miner.status import CacheReport, GpuStatus, NodeStatus

EXIT_NOT_RUNNING = 5
_TIMEOUT_S = 10
_FOLDERS_SHOWN = 10


def doctor(settings: MinerSettings, *, connect: Connect = ChainClient.connect) -> Report:
    """Return what the doctor finds; blocks."""
    return asyncio.run(examine(settings, connect))


def fetch(settings: MinerSettings, path: str) -> bytes:
    """Return what the running miner of this data directory answers.

    Raises:
        NotFound: ``miner_never_ran``.
        Unavailable: ``miner_not_running``.
        ProtocolError: ``bad_answer``.
    """
    data = settings.data_path
    port = settings.operator_port or remembered_ports(data).get("operator", 0)
    try:
        token = (data / TOKEN_FILE).read_text().strip()
    except OSError as error:
        raise NotFound(
            "miner_never_ran",
            f"{data} holds no operator token: {error.strerror}",
            hint="give the miner's own --data-dir, as the user that runs it; or start it",
        ) from error
    host = settings.operator_host if settings.operator_host != "0.0.0.0" else "127.0.0.1"  # noqa: S104 - where to dial
    link = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        link.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = link.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            "miner_not_running",
            f"no miner of {data} answers on {host}:{port}",
            hint="is it running? journalctl -u chutes-miner shows its log",
        ) from error
    finally:
        link.close()
    if answer.status != 200:
        raise ProtocolError("bad_answer", f"{host}:{port} answered {answer.status}")
    return body


def read_status(settings: MinerSettings) -> NodeStatus:
    """Return the running miner's status.

    Raises:
        NotFound, Unavailable, ProtocolError: see `fetch`.
    """
    return NodeStatus.model_validate(json.loads(fetch(settings, "/status")))


def status_text(status: NodeStatus) -> str:
    """Return a status for a person."""
    return "\n".join([*_head(status), *map(_gpu, status.gpus), *_rest(status)])


def _head(status: NodeStatus) -> Iterable[str]:
    state = "draining" if status.draining else "running"
    yield f"miner {status.hotkey}: {state}, version {status.version}, {status.runtime} runtime"
    yield f"  axon {status.axon}, relay port {status.relay_port}, block {status.block}"
    earns = "not registered" if status.incentive is None else f"{status.incentive} of 65535"
    paid = status.users_pay_rao_per_hour
    yield f"  incentive {earns}; users pay {paid} rao an hour for what runs"


def _gpu(gpu: GpuStatus) -> str:
    if not gpu.idle_reason:
        state = f"serves {gpu.launch_id or 'a launch that is asked for'}"
    else:
        state = f"idle: {gpu.idle_reason}" + (f" ({gpu.idle_hint})" if gpu.idle_hint else "")
    trouble = f"; problems: {', '.join(gpu.problems)}" if gpu.problems else ""
    return f"  {gpu.uuid} {gpu.gpu_class}: {state}{trouble}"


def _cache(cache: CacheReport) -> Iterable[str]:
    if not cache.most_bytes:
        return
    chutes = len(cache.folders)
    yield f"  model cache: {cache.used_bytes} of {cache.most_bytes} bytes, {chutes} chutes"
    for one in cache.folders[:_FOLDERS_SHOWN]:
        used = f"on {one.gpus} GPUs now" if one.gpus else "not in use"
        yield f"  models of chute {one.chute_id}: {one.used_bytes} bytes, {used}"


def _rest(status: NodeStatus) -> Iterable[str]:
    for launch in status.launches:
        yield (
            f"  launch {launch.launch_id}: chute {launch.chute_id} {launch.state} for"
            f" {launch.age_s} s, {launch.rao_per_hour} rao an hour"
        )
    for pull in status.pulls:
        went_on = f", went on from {pull.had_bytes}" if pull.had_bytes else ""
        yield (
            f"  fetches {pull.name} ({pull.source}): {pull.got_bytes} of"
            f" {pull.total_bytes or 'unknown'} bytes, {pull.percent} %{went_on}"
        )
    yield from _cache(status.cache)
    for one in status.waiting:
        yield f"  waits {one.seconds} s with chute {one.chute_id}: {one.reason}"
    for validator in status.validators:
        heard = "never heard" if validator.silent_s is None else f"heard {validator.silent_s} s ago"
        outdated = ", speaks a newer protocol" if validator.outdated else ""
        yield f"  validator {validator.hotkey} at {validator.url}: {heard}{outdated}"
    for kind, count in status.walls_tried.items():
        yield f"  an instance tried what it may not: {kind}, {count} times"
    for end in status.ended_lately[:5]:
        why = f"{end.reason} {end.detail}".rstrip()
        yield f"  ended: {end.launch_id} of chute {end.chute_id}: {why}"
