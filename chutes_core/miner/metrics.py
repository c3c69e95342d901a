"""The miner's Prometheus metrics: a picture of its status, made when it is asked for.

Path: operator_http -> `render`. Invariant: nothing here counts on its own; every number is read
from the status, so that the two never disagree, and an idle miner costs nothing.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chutes_core.miner.status import NodeStatus

_PREFIX = "chutes_miner_"


class StatusCollector(Collector):
    """Turns a status into metric families."""

    def __init__(self, status: Callable[[], NodeStatus]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """Read the status once and yield all families."""
        status = self._status()
        yield from _node(status)
        yield from _gpus(status)
        yield from _counts(status)


def render(status: Callable[[], NodeStatus]) -> bytes:
    """Return the text form of all metrics."""
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    return generate_latest(registry)


def _node(status: NodeStatus) -> Iterable[Metric]:
    about = _gauge(
        "info", "Version, protocol range and runtime.", ["version", "protocol", "runtime"]
    )
    span = f"{status.protocol_min}-{status.protocol_max}"
    about.add_metric([status.version, span, status.runtime], 1)
    yield about
    numbers = {
        "block": ("Finalized block of the last chain reading.", status.block),
        "registered": ("1 while the hotkey is registered.", int(status.registered)),
        "incentive": ("Incentive on the metagraph (0 to 65535).", status.incentive or 0),
        "draining": ("1 while the miner is stopping.", int(status.draining)),
        "users_pay_rao_per_hour": (
            "What the users of the running chutes pay their validators in an hour.",
            status.users_pay_rao_per_hour,
        ),
        "hourly_cost_usd_micros": ("What the node costs, as set.", status.hourly_cost_usd_micros),
        "disk_free_bytes": ("Free space under the data directory.", status.host.disk_free_bytes),
        "memory_free_bytes": ("Memory that can be given out.", status.host.memory_free_bytes),
        "transfer_bytes_per_second": (
            "Measured on the last image transfers; 0 before the first.",
            status.host.measured_bytes_per_s or 0,
        ),
    }
    for name, (text, value) in numbers.items():
        yield _gauge(name, text, value=value)
    silent = _gauge("validator_silent_seconds", "Since a validator answered.", ["validator"])
    for validator in status.validators:
        silent.add_metric(
            [validator.hotkey], -1 if validator.silent_s is None else validator.silent_s
        )
    yield silent


def _gpus(status: NodeStatus) -> Iterable[Metric]:
    idle = _gauge("gpu_idle", "1 while a GPU serves nothing, with the reason.", ["gpu", "reason"])
    used = _gauge("gpu_used_bytes", "Memory of a GPU in use.", ["gpu"])
    problem = _gauge("gpu_problem", "1 for each problem of a GPU.", ["gpu", "problem"])
    for gpu in status.gpus:
        idle.add_metric([gpu.uuid, gpu.idle_reason], int(bool(gpu.idle_reason)))
        used.add_metric([gpu.uuid], gpu.used_bytes)
        for name in gpu.problems:
            problem.add_metric([gpu.uuid, name], 1)
    launches = _gauge("launches", "Launches by state.", ["state"])
    states = [one.state for one in status.launches]
    for state in sorted(set(states)):
        launches.add_metric([state], states.count(state))
    yield from (idle, used, problem, launches)
    yield from _pulls(status)
    yield from _cache(status)


def _cache(status: NodeStatus) -> Iterable[Metric]:
    cache = status.cache
    yield _gauge("cache_used_bytes", "What all models take.", value=cache.used_bytes)
    yield _gauge("cache_most_bytes", "The bound of that; 0: no cache.", value=cache.most_bytes)
    yield _gauge("cache_folders", "Chutes whose models are here.", value=len(cache.folders))
    evicted = _counter("cache_evicted", "Folders of models that went, by reason.", ["reason"])
    for reason, count in cache.evicted.items():
        evicted.add_metric([reason], count)
    launches = _counter("cache_launches", "Launches that found models here, or none.", ["found"])
    for found, count in cache.launches.items():
        launches.add_metric([found], count)
    yield from (evicted, launches)


def _pulls(status: NodeStatus) -> Iterable[Metric]:
    got = _gauge("pull_got_bytes", "Bytes that are here of an image being fetched.", ["image"])
    total = _gauge("pull_total_bytes", "Its size; 0 while it is not known.", ["image"])
    for pull in status.pulls:
        got.add_metric([pull.name], pull.got_bytes)
        total.add_metric([pull.name], pull.total_bytes)
    yield from (got, total)


def _counts(status: NodeStatus) -> Iterable[Metric]:
    ended = _counter("instances_ended", "Instances that ended, by reason.", ["reason"])
    for reason, count in status.ended.items():
        ended.add_metric([reason], count)
    refused = _counter("relay_refused", "Connections that the relay refused.", ["reason"])
    for reason, count in status.relay_refused.items():
        refused.add_metric([reason], count)
    tried = _counter(
        "walls_tried",
        "What instances tried and were refused: packets to the host or to private ranges, processes"
        " and memory beyond their bounds.",
        ["kind"],
    )
    for kind, count in status.walls_tried.items():
        tried.add_metric([kind], count)
    carried = _counter("relay_carried", "Connections that the relay carried.", [])
    carried.add_metric([], status.relay_carried)
    loops = _counter("loop_failures", "Failed rounds of the miner's own work.", ["loop"])
    for name, count in status.loop_failures.items():
        loops.add_metric([name], count)
    yield from (ended, refused, tried, carried, loops)


def _gauge(
    name: str, text: str, labels: list[str] | None = None, value: float | None = None
) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, labels=labels, value=value)


def _counter(name: str, text: str, labels: list[str]) -> CounterMetricFamily:
    return CounterMetricFamily(_PREFIX + name, text, labels=labels)
