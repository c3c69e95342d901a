"""What the user-facing routes need: accounts, images with their builder, chutes, money, logs."""

import secrets
from dataclasses import dataclass

from chutes_core.chain.addresses import derive
from chutes_core.engine.connect import connect
from chutes_core.validator.accounts.service import Accounts
from chutes_core.validator.api.services import Services
from chutes_core.validator.billing.ledger import Ledger
from chutes_core.validator.catalog.builder import Builder, ProcessRuntimeBuilder
from chutes_core.validator.catalog.chutes import Chutes, no_fee
from chutes_core.validator.catalog.docker_builder import DockerBuilder, Guard
from chutes_core.validator.catalog.images import Images
from chutes_core.validator.launches.logs import InstanceLogs
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.wiring.ground import Ground, Shared
from chutes_core.validator.wiring.jobs import JobParts
from chutes_core.validator.wiring.traffic import Traffic


def build_services(shared: Shared, traffic: Traffic, jobs: JobParts) -> Services:
    """Construct the services behind the user-facing routes."""
    store, clock, network = shared.store, shared.clock, shared.network
    return Services(
        store=store,
        accounts=Accounts(store, clock, _Addresses(shared.settings)),
        images=_images(shared),
        chutes=_chutes(shared, traffic),
        ledger=Ledger(store),
        rates=shared.rates,
        clock=clock,
        failures=shared.failures,
        secrets=shared.secrets,
        tail=InstanceLogs(shared.ground.client, network.url_of_miner).tail,
        wake=traffic.gateway.demand.touch,
        jobs=jobs.jobs,
        reach=jobs.reach,
    )


@dataclass(frozen=True)
class _Addresses:
    """Derives both addresses of an account from the treasuries' public keys."""

    settings: ValidatorSettings

    def payment(self, number: int) -> str:
        return derive(self.settings.payment_treasury, number)

    def deposit(self, number: int) -> str:
        return derive(self.settings.deposit_treasury, number)


def _chutes(shared: Shared, traffic: Traffic) -> Chutes:
    settings = shared.settings
    return Chutes(
        shared.store,
        shared.clock,
        fee_rao=shared.rates.deploy_fee_rao if settings.deploy_fee else no_fee,
        require_developer=settings.require_developer_deposit,
        spending=traffic.gateway.spending,
    )


def _images(shared: Shared) -> Images:
    settings = shared.settings
    return Images(
        shared.store,
        shared.clock,
        _builder(shared),
        slots=settings.build_slots,
        registry=shared.registry,
        require_developer=settings.require_developer_deposit,
    )


def _builder(shared: Shared) -> Builder:
    settings = shared.settings
    if settings.runtime == "process":
        return ProcessRuntimeBuilder()
    host = settings.docker_host or None
    return DockerBuilder(
        shared.store.blobs,
        lambda: connect(host),
        _guard(shared.ground),
        settings.build_limits,
        registry=shared.registry,
        label=_label(shared.ground),
    )


def _label(ground: Ground) -> str:
    """Return what tells the images of this validator's store from those of another."""
    path = ground.data_dir / "builder.id"
    if not path.exists():
        path.write_text(secrets.token_hex(8))
    return f"{ground.keys.hotkey_ss58}:{path.read_text().strip()}"


def _guard(ground: Ground) -> Guard:
    return Guard(
        f"builds:{ground.keys.hotkey_ss58}",
        required=not ground.settings.build_unguarded,
        allowed=ground.settings.build_allowed_ranges,
    )
