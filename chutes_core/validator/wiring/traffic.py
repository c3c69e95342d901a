"""The public port's parts: gateway, journal, and the pictures that the gateway decides by.

Invariant: whatever the gateway may know of the store reaches it through `Pictures` alone.
"""

from dataclasses import dataclass

from chutes_core.validator.gateway.asgi import AsgiApp, Receive, Scope, Send
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.launches.pauses import Pauses
from chutes_core.validator.launches.quota import Quota
from chutes_core.validator.launches.snapshot import build as build_snapshot
from chutes_core.validator.pictures import Pictures
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.wiring.ground import Shared

WORKER = "gateway-0"


class ControlPlane:
    """The application behind the gateway; `serve` is set when its parts exist."""

    def __init__(self) -> None:
        self.serve: AsgiApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        assert self.serve is not None, "no request comes before the parts are wired"
        await self.serve(scope, receive, send)


@dataclass(frozen=True)
class Traffic:
    """What stands between a caller and the instances."""

    control: ControlPlane
    journal: Journal
    gateway: Gateway
    pauses: Pauses
    pictures: Pictures


def build_traffic(shared: Shared) -> Traffic:
    """Construct the gateway and what it reads and writes."""
    journal = Journal(shared.ground.data_dir / "journal" / WORKER, WORKER)
    control = ControlPlane()
    gateway = Gateway(
        control=control,
        journal=journal,
        limits=_limits(shared.settings),
        domain=shared.settings.domain or None,
        failures=shared.failures,
        clock=shared.clock,
    )
    pauses = Pauses()
    return Traffic(control, journal, gateway, pauses, _pictures(shared, gateway, pauses))


def _limits(settings: ValidatorSettings) -> GatewayLimits:
    return GatewayLimits(
        max_call_s=settings.max_call_s,
        cold_wait_s=settings.cold_wait_s,
        key_calls_per_s=settings.calls_per_second,
        key_burst=settings.calls_burst,
        max_body_bytes=settings.max_body_bytes,
    )


def _pictures(shared: Shared, gateway: Gateway, pauses: Pauses) -> Pictures:
    store, vault, rates = shared.store, shared.vault, shared.rates
    free, clock = shared.settings.free_calls_per_day, shared.clock
    return Pictures(
        lambda: build_snapshot(
            store,
            vault,
            lambda chute: rates.of(chute.selector),
            pauses,
            quota=Quota(free, clock.now_s()),
        ),
        gateway.swap,
    )
