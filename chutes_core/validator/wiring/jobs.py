"""The parts that carry runs of jobs: what users ask of them, and the conductor behind it."""

from dataclasses import dataclass

from chutes_core.validator.jobs.claims import Claims
from chutes_core.validator.jobs.conductor import Conductor
from chutes_core.validator.jobs.ending import Endings
from chutes_core.validator.jobs.ports.reach import Reach
from chutes_core.validator.jobs.service import Jobs
from chutes_core.validator.wiring.ground import Shared
from chutes_core.validator.wiring.launching import Launching
from chutes_core.validator.wiring.traffic import Traffic


@dataclass(frozen=True)
class JobParts:
    """Everything that has to do with runs of jobs."""

    jobs: Jobs
    endings: Endings
    conductor: Conductor
    reach: Reach


def build_jobs(shared: Shared, traffic: Traffic, launching: Launching) -> JobParts:
    """Construct the parts; they take instances from the launches and give them back."""
    store, clock, settings = shared.store, shared.clock, shared.settings
    endings = Endings(store, clock)
    claims = Claims(
        store=store,
        clock=clock,
        wanted=launching.wanted,
        in_flight=traffic.gateway.in_flight_of,
        endings=endings,
        wait_s=settings.job_wait_s,
    )
    reach = Reach(store, launching.lifecycle.address)
    return JobParts(
        jobs=Jobs(store, clock, shared.rates, spending=traffic.gateway.spending, endings=endings),
        endings=endings,
        conductor=Conductor(
            store=store,
            clock=clock,
            claims=claims,
            endings=endings,
            address_of=launching.lifecycle.address,
            drain=launching.keeper.drain,
            changed=traffic.pictures.refresh,
            max_files_bytes=settings.job_files_max_bytes,
            left=reach.close_run,
        ),
        reach=reach,
    )
