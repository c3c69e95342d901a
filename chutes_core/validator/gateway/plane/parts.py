"""What the gateway's two fronts share. Invariant: one of each, so that all sums are of both."""

from collections.abc import Callable
from dataclasses import dataclass

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.gateway.body import Bodies
from chutes_core.validator.gateway.buckets import Buckets
from chutes_core.validator.gateway.demand import Demand
from chutes_core.validator.gateway.forward import Forwarder
from chutes_core.validator.gateway.front import Front
from chutes_core.validator.gateway.holds import Holds
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.metering import Metering
from chutes_core.validator.gateway.pool import Pool
from chutes_core.validator.gateway.queue import ColdQueue
from chutes_core.validator.gateway.routing import Router


@dataclass(frozen=True)
class Parts:
    """The gateway's parts that both fronts share."""

    front: Front
    forwarder: Forwarder
    snapshot: Callable[[], Snapshot]
    router: Router
    pool: Pool
    queue: ColdQueue
    holds: Holds
    buckets: Buckets
    bodies: Bodies
    demand: Demand
    journal: Journal
    metering: Metering
    limits: GatewayLimits
    clock: Clock
    domain: str | None
