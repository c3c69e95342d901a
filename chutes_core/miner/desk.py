"""Puts the miner's parts together into one status, for the operator and for validators.

Path: operator_http, server -> here -> books, leases, health, scheduler. Invariant: reads only, and
from memory only, so that it can be asked at any time.
"""

from pathlib import Path

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Unavailable
from chutes_core.base.loops import Loops
from chutes_core.miner.attempts import AttemptWatch
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.cache.model_cache import ModelCache
from chutes_core.miner.chain_view import ChainView
from chutes_core.miner.deployer import Deployer
from chutes_core.miner.discovery import Directory
from chutes_core.miner.health import HealthWatch
from chutes_core.miner.hostfacts import TransferMeter, host_facts
from chutes_core.miner.inventory import Node
from chutes_core.miner.leases import LeaseBook
from chutes_core.miner.pulls import Pulls
from chutes_core.miner.relay import Relay
from chutes_core.miner.scheduler import Scheduler
from chutes_core.miner.status import (
    GpuView,
    NodeStatus,
    ValidatorStatus,
    Waiting,
    cache_report,
    end_reports,
    gpu_statuses,
    launch_reports,
    pull_reports,
)
from chutes_core.wire.control import Inventory


class Desk:
    """Answers what this node is and does."""

    def __init__(
        self,
        *,
        node: Node,
        axon: str,
        data: Path,
        view: ChainView,
        directory: Directory,
        book: LeaseBook,
        scheduler: Scheduler,
        deployer: Deployer,
        backoff: BackOff,
        relay: Relay,
        health: HealthWatch,
        meter: TransferMeter,
        attempts: AttemptWatch,
        pulls: Pulls,
        cache: ModelCache,
        loops: Loops,
        clock: Clock,
    ) -> None:
        self._node = node
        self._axon = axon
        self._data = data
        self._view = view
        self._directory = directory
        self._book = book
        self._scheduler = scheduler
        self._deployer = deployer
        self._backoff = backoff
        self._relay = relay
        self._health = health
        self._meter = meter
        self._attempts = attempts
        self._pulls = pulls
        self._cache = cache
        self._loops = loops
        self._clock = clock

    def inventory(self) -> Inventory:
        """Return what validators are told of this node."""
        return self._node.inventory(
            leases=self._book.current(self._view.block),
            launch_ids=self._deployer.launch_ids(),
            now_s=self._clock.now_s(),
            health_of=self._health.of,
            host=host_facts(self._data, self._meter),
        )

    def status(self) -> NodeStatus:
        """Return what the operator is told."""
        node, books, block = self._node, self._deployer.books, self._block()
        reports = launch_reports(books.live.values(), self._clock.monotonic_us())
        return NodeStatus(
            hotkey=node.hotkey_ss58,
            version=node.handshake.version,
            protocol_min=node.handshake.protocol_min,
            protocol_max=node.handshake.protocol_max,
            runtime=node.runtime,
            axon=self._axon,
            relay_port=node.relay_port,
            block=block,
            registered=block > 0 and self._view.registered,
            incentive=self._view.incentive if block else None,
            hourly_cost_usd_micros=node.hourly_cost_usd_micros,
            users_pay_rao_per_hour=sum(r.rao_per_hour for r in reports if r.state == "active"),
            draining=self._deployer.draining,
            gpus=gpu_statuses(node, self._gpu_view(block)),
            launches=reports,
            validators=self._validators(),
            waiting=self._waiting(),
            ended_lately=end_reports(books.ends),
            ended=dict(books.counts),
            loop_failures={
                f"{name}:{code}": count for (name, code), count in self._loops.failures.items()
            },
            walls_tried=dict(self._attempts.counts),
            relay_carried=self._relay.counts.carried,
            relay_refused=dict(self._relay.counts.refused),
            pulls=pull_reports(self._pulls.under_way()),
            cache=cache_report(self._cache.facts()),
            host=host_facts(self._data, self._meter),
        )

    def _block(self) -> int:
        try:
            return self._view.block
        except Unavailable:  # it was not read yet
            return 0

    def _gpu_view(self, block: int) -> GpuView:
        return GpuView(
            promises=self._book.promises(block),
            running=self._deployer.running(),
            last=self._scheduler.last,
            draining=self._deployer.draining,
            health_of=self._health.of,
        )

    def _validators(self) -> tuple[ValidatorStatus, ...]:
        return tuple(
            ValidatorStatus(
                hotkey=validator.hotkey,
                url=validator.url,
                stake_rao=validator.stake_rao,
                silent_s=_whole(self._scheduler.silent_s(validator.hotkey)),
                outdated=validator.hotkey in self._scheduler.outdated,
            )
            for validator in self._directory.validators
        )

    def _waiting(self) -> tuple[Waiting, ...]:
        return tuple(
            Waiting(validator=validator, chute_id=chute_id, reason=reason, seconds=round(left_s))
            for (validator, chute_id), (reason, left_s) in self._backoff.entries().items()
        )


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
