"""The gateway put together: one front, one snapshot, one journal, one pool.

Seams: a read-only Snapshot comes in by `swap`, Invocations go out through the Journal; it never
calls store, billing or scoring. Invariant: all of it runs on one event loop, and nothing in it
blocks that loop but the journal's single write.
"""

import random
import ssl
from dataclasses import dataclass

from chutes_core.base.clock import Clock, SystemClock
from chutes_core.base.failures import FailedTries
from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.gateway.asgi import AsgiApp
from chutes_core.validator.gateway.body import Bodies
from chutes_core.validator.gateway.buckets import Buckets
from chutes_core.validator.gateway.demand import Demand
from chutes_core.validator.gateway.forward import Forwarder
from chutes_core.validator.gateway.front import Front
from chutes_core.validator.gateway.grace import Grace
from chutes_core.validator.gateway.holds import Holds, Spending
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.metering import Metering
from chutes_core.validator.gateway.metrics import Counts, gauge_lines
from chutes_core.validator.gateway.plane.fast import FastPath
from chutes_core.validator.gateway.plane.link import open_link
from chutes_core.validator.gateway.plane.parts import Parts
from chutes_core.validator.gateway.plane.server import Plane
from chutes_core.validator.gateway.pool import Pool
from chutes_core.validator.gateway.queue import ColdQueue
from chutes_core.validator.gateway.routing import Router
from chutes_core.validator.gateway.websockets import OpenWebsockets
from chutes_core.wire.http_server import HttpLimits

_REPLAY_BATCH = 10_000


@dataclass(frozen=True)
class Shared:
    """What a worker counts together with others (workers/), and how many there are."""

    holds: Holds
    buckets: Buckets
    router: Router
    workers: int


class Gateway:
    """The validator's public port.

    Args:
        control: the ASGI application for everything that is no invocation.
        journal: open; what it holds undrained counts against the accounts until drained.
        limits: every bound.
        domain: `{slug}.{domain}` hosts are invocations; None without a wildcard name.
        failures: shared with the other doors of the process.
        clock, rng: a test's to replace.
        shared: what a worker has in common with others; None where the gateway is alone.

    Attributes:
        front: the ASGI application to give to the server.
        demand: callers by chute, for autoscale.
    """

    def __init__(
        self,
        *,
        control: AsgiApp,
        journal: Journal,
        limits: GatewayLimits | None = None,
        domain: str | None = None,
        failures: FailedTries | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        shared: Shared | None = None,
    ) -> None:
        limits = limits or GatewayLimits()
        clock = clock or SystemClock()
        self.demand = Demand(clock)
        self._journal = journal
        self._clock = clock
        self._swapped_us = clock.monotonic_us()
        self._snapshot = Snapshot()
        self._holds = shared.holds if shared else Holds()
        self._bodies = Bodies(limits)
        self._queue = ColdQueue(per_chute=limits.max_waiting_per_chute, in_all=limits.max_waiting)
        self._router = shared.router if shared else Router(clock=clock, rng=rng or random.Random())
        self._pool = Pool(
            clock=clock,
            connect_timeout_s=limits.connect_timeout_s,
            max_idle_per_instance=limits.max_idle_per_instance,
            idle_s=limits.idle_connection_s,
            opening=open_link,
        )
        grace = Grace(clock, shares=shared.workers if shared else 1)
        self._metering = Metering(journal=journal, clock=clock, grace=grace)
        forwarder = Forwarder(
            router=self._router,
            pool=self._pool,
            queue=self._queue,
            demand=self.demand,
            metering=self._metering,
            limits=limits,
            clock=clock,
        )
        buckets = (
            shared.buckets
            if shared
            else Buckets(per_s=limits.key_calls_per_s, burst=limits.key_burst, clock=clock)
        )
        self.front = Front(
            control=control,
            snapshot=lambda: self._snapshot,
            forwarder=forwarder,
            holds=self._holds,
            buckets=buckets,
            bodies=self._bodies,
            demand=self.demand,
            journal=journal,
            domain=domain,
            failures=failures or FailedTries(clock),
            max_calls=limits.max_calls,
            websockets=OpenWebsockets(limits.max_websockets_per_key),
            clock=clock,
        )
        self._parts = Parts(
            front=self.front,
            forwarder=forwarder,
            snapshot=lambda: self._snapshot,
            router=self._router,
            pool=self._pool,
            queue=self._queue,
            holds=self._holds,
            buckets=buckets,
            bodies=self._bodies,
            demand=self.demand,
            journal=journal,
            metering=self._metering,
            limits=limits,
            clock=clock,
            domain=domain,
        )
        self._replay()

    def plane(
        self,
        limits: HttpLimits | None = None,
        *,
        grace_s: float,
        proxies: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Plane:
        """Return the server of the data plane: `front` behind it, ordinary calls past it."""
        own = self._parts.limits
        return Plane(
            self.front,
            FastPath(self._parts),
            limits,
            body_timeout_s=own.body_timeout_s,
            grace_s=grace_s,
            proxies=proxies,
            tls=tls,
            shortest_s=min(own.first_byte_timeout_s, own.idle_timeout_s, own.body_timeout_s),
        )

    def spending(self) -> Spending:
        """Return what holds credit while a write outside of a call takes it; in any thread."""
        return self._holds.spending()

    def swap(self, snapshot: Snapshot) -> None:
        """Decide by this snapshot from now on; calls that run go on with theirs."""
        self._snapshot = snapshot
        self._swapped_us = self._clock.monotonic_us()
        self._holds.drained(snapshot.drained.get(self._journal.worker, 0), snapshot.ledger_entry)
        self._router.swap(snapshot.instances)
        self._pool.swap([v.launch_id for views in snapshot.instances.values() for v in views])
        self.demand.keep(snapshot.chutes.keys())
        for chute_id in self._queue.waiting_for():
            slots = sum(view.concurrency for view in snapshot.instances.get(chute_id, ()))
            self._queue.wake(chute_id, slots)

    def stats(self) -> dict[str, int]:
        """Return callers in flight, slots, waiting, bytes held, instances broken, outcomes."""
        return {
            "in_flight": self.front.in_flight,
            "slots": self._router.in_flight(),
            "waiting": self._queue.size,
            "body_bytes": self._bodies.held_bytes,
            "broken": self._router.broken(),
            **{f"outcome_{name}": count for name, count in self._metering.outcomes.items()},
        }

    def counts(self) -> Counts:
        """Return what is counted for metrics."""
        metering = self._metering
        refused, outcomes = self.front.refused, metering.outcomes
        return Counts(outcomes, refused, metering.durations, metering.first_bytes)

    def log_calls(self) -> None:
        """Write one line to the log for each call from now on."""
        self._metering.access_log = True

    def metrics(self) -> str:
        """Return the figures of this process in Prometheus' text format."""
        drained = self._snapshot.drained.get(self._journal.worker, 0)
        gauges = {
            "calls_in_flight": self.front.in_flight,
            "slots_taken": self._router.in_flight(),
            "callers_waiting": self._queue.size,
            "body_bytes": self._bodies.held_bytes,
            "instances_broken": self._router.broken(),
            "journal_lag_records": max(0, self._journal.last_sequence - drained),
            "snapshot_age_seconds": (self._clock.monotonic_us() - self._swapped_us) / 1_000_000,
        }
        return "\n".join((*self.counts().lines(), *gauge_lines(gauges))) + "\n"

    def in_flight_of(self, launch_id: str) -> int:
        """Return how many calls an instance has, also one that has left the snapshot."""
        return self._router.in_flight_of(launch_id)

    def taken_rao(self, user_id: str) -> int:
        """Return what of an account is held or charged and not yet in the snapshot."""
        return self._holds.taken_rao(user_id)

    async def quiet(self) -> None:
        """Return when no call runs."""
        await self.front.idle.wait()

    async def close(self) -> None:
        """Close the idle connections; the server has ended the calls before."""
        self._pool.close()

    def _replay(self) -> None:
        after = 0
        while batch := self._journal.pending(after, _REPLAY_BATCH):
            self._holds.replay(batch)
            after = batch[-1].sequence
