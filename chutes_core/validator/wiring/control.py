"""The control plane: every route that is no invocation, behind the doors that all of them share.

Path: gateway/front -> signatures of neurons -> fresh after writes -> FastAPI. Invariant: what lies
under `MINER_PREFIX` is reached by a signed request alone.
"""

from fastapi import APIRouter, FastAPI

from chutes_core.base.version import VERSION
from chutes_core.validator.api.errors import install_errors
from chutes_core.validator.api.openapi import document_errors
from chutes_core.validator.api.router import build_router
from chutes_core.validator.api.routes import (
    discovery,
    health,
    miner,
    money,
    reachable,
    transfers,
    wake,
)
from chutes_core.validator.api.routes.ports import is_port_path
from chutes_core.validator.api.services import Services
from chutes_core.validator.gateway.asgi import AsgiApp
from chutes_core.validator.launches.dialback import DialBacks
from chutes_core.validator.pictures import FreshAfterWrites, Pictures
from chutes_core.validator.wiring.ground import Shared
from chutes_core.validator.wiring.launching import Launching
from chutes_core.validator.wiring.treasury import Treasury
from chutes_core.wire.neuron_http import SignedASGI

MINER_PREFIX = "/miner/"


def build_control_plane(
    shared: Shared,
    pictures: Pictures,
    launching: Launching,
    services: Services,
    treasury: Treasury,
) -> AsgiApp:
    """Construct the application that answers what the gateway does not."""
    app = FastAPI(title="chutes validator", version=VERSION)
    install_errors(app)
    app.include_router(_money(services, treasury))
    app.include_router(build_router(services))
    app.include_router(miner.build_router(launching.launches, shared.store))
    app.include_router(reachable.build_router(DialBacks(shared.network, shared.clock)))
    app.include_router(wake.build_router(launching.bell))
    app.include_router(transfers.build_router(launching.transfers))
    app.include_router(_discovery(shared, launching))
    app.include_router(health.build_router(shared.health))
    document_errors(app)
    return SignedASGI(
        FreshAfterWrites(app, pictures, except_under=MINER_PREFIX, except_for=is_port_path),
        keypair=shared.ground.keys.hotkey,
        nonces=shared.store.nonces,
        authorise=shared.network.authorise_neuron,
        clock=shared.clock,
        prefixes=(MINER_PREFIX,),
        failures=services.failures,
    )


def _money(services: Services, treasury: Treasury) -> APIRouter:
    return money.build_router(
        services,
        deposits=treasury.deposits,
        refunds=treasury.refunds,
        linking=treasury.linking,
        gifts=treasury.gifts,
    )


def _discovery(shared: Shared, launching: Launching) -> APIRouter:
    ground = shared.ground
    return discovery.build_router(
        keypair=ground.keys.hotkey,
        public_url=ground.public_url,
        netuid=ground.settings.netuid,
        genesis_hash=ground.chain.genesis_hash,
        version=VERSION,
        leases=launching.leases,
        chain=shared.network,
        store=shared.store,
        clock=ground.clock,
    )
