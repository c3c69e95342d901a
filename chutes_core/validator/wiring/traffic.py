"""The public port's parts: gateway, journals, and the pictures that the gateway decides by.

Invariant: whatever the gateway may know of the store reaches it through `Pictures` alone.
"""

from dataclasses import dataclass
from pathlib import Path

from chutes_core.validator.billing.receipts import Sealer
from chutes_core.validator.billing.settle import Settlement
from chutes_core.validator.gateway.asgi import AsgiApp, Receive, Scope, Send
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.workers.crew import Crew
from chutes_core.validator.gateway.workers.journals import Journals
from chutes_core.validator.gateway.workers.setup import Setup
from chutes_core.validator.launches.pauses import Pauses
from chutes_core.validator.launches.quota import Quota
from chutes_core.validator.launches.snapshot import build as build_snapshot
from chutes_core.validator.pictures import Pictures
from chutes_core.validator.server import GRACE_S, http_limits, proxies_of
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.wiring.ground import Ground, Shared

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
    journals: Journals
    gateway: Gateway | Crew
    pauses: Pauses
    pictures: Pictures


def build_traffic(shared: Shared) -> Traffic:
    """Construct the gateway and what it reads and writes."""
    control, pauses = ControlPlane(), Pauses()
    gateway: Gateway | Crew
    if shared.settings.gateway_workers > 1:
        gateway = _crew(shared, control)
        journals = gateway.journals
    else:
        gateway, journals = _gateway(shared, control)
    pictures = _pictures(shared, gateway, pauses)
    if isinstance(gateway, Crew):
        settlement = Settlement(shared.store, sealer=sealer_of(shared.ground))
        gateway.bind(settlement.drain, pictures.refresh)
    return Traffic(control, journals, gateway, pauses, pictures)


def sealer_of(ground: Ground) -> Sealer:
    """Return what signs the batches that are settled, of every journal."""
    return Sealer(ground.keys.hotkey, ground.chain.genesis_hash, ground.settings.netuid)


def _gateway(shared: Shared, control: ControlPlane) -> tuple[Gateway, Journals]:
    folder = _journal_folder(shared)
    journal = Journal(folder / WORKER, WORKER)
    gateway = Gateway(
        control=control,
        journal=journal,
        limits=_limits(shared.settings),
        domain=shared.settings.domain or None,
        failures=shared.failures,
        clock=shared.clock,
    )
    return gateway, Journals(folder, journal)


def _crew(shared: Shared, control: ControlPlane) -> Crew:
    settings = shared.settings
    certificate, key = settings.tls_certificate, settings.tls_key
    setup = Setup(
        workers=settings.gateway_workers,
        journal_folder=str(_journal_folder(shared)),
        limits=_limits(settings),
        http=http_limits(settings),
        grace_s=GRACE_S,
        domain=settings.domain or None,
        proxies=proxies_of(settings),
        tls_certificate=None if certificate is None else str(certificate),
        tls_key=None if key is None else str(key),
        log_level=settings.log_level,
        json_logs=settings.json_logs,
        access_log=settings.access_log,
    )
    return Crew(setup, control=control, clock=shared.clock, noted=shared.health.note)


def _journal_folder(shared: Shared) -> Path:
    return shared.ground.data_dir / "journal"


def _limits(settings: ValidatorSettings) -> GatewayLimits:
    return GatewayLimits(
        max_call_s=settings.max_call_s,
        cold_wait_s=settings.cold_wait_s,
        key_calls_per_s=settings.calls_per_second,
        key_burst=settings.calls_burst,
        max_body_bytes=settings.max_body_bytes,
    )


def _pictures(shared: Shared, gateway: Gateway | Crew, pauses: Pauses) -> Pictures:
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
