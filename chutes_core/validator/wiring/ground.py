"""What the process stands on, and the parts that every group of parts is given.

Invariant: each part here exists once in a process; whoever needs one receives it.
"""

from dataclasses import dataclass
from pathlib import Path

from chutes_core.base.clock import Clock
from chutes_core.base.failures import FailedTries
from chutes_core.chain.client import ChainClient
from chutes_core.chain.keys import NeuronKeys
from chutes_core.validator.accounts.secrets import Secrets
from chutes_core.validator.billing.rates import Rates
from chutes_core.validator.catalog.registry import Place, Registry
from chutes_core.validator.catalog.registry_tokens import RegistryTokens
from chutes_core.validator.health import Health
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.network import Network
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.store.database import Store
from chutes_core.wire.peers import SignedClient


@dataclass(frozen=True)
class Ground:
    """What the process stands on, given by its entrance."""

    settings: ValidatorSettings
    keys: NeuronKeys
    chain: ChainClient
    client: SignedClient
    clock: Clock
    public_url: str

    @property
    def data_dir(self) -> Path:
        """The directory of everything that the validator keeps."""
        return self.settings.data_dir.expanduser()


@dataclass(frozen=True)
class Shared:
    """The parts that several groups use."""

    ground: Ground
    store: Store
    vault: Vault
    network: Network
    rates: Rates
    secrets: Secrets
    failures: FailedTries
    health: Health
    registry: Registry | None = None

    @property
    def settings(self) -> ValidatorSettings:
        """The settings of the process."""
        return self.ground.settings

    @property
    def clock(self) -> Clock:
        """The clock of the process."""
        return self.ground.clock


def build_shared(ground: Ground) -> Shared:
    """Open the store and the vault, and construct what the other groups share."""
    settings, clock = ground.settings, ground.clock
    store = Store(ground.data_dir / "validator.sqlite", clock=clock)
    ground.chain.use_outbox(store.outbox, archive_url=settings.archive_url)
    vault = Vault.open(ground.data_dir / "vault.key")
    return Shared(
        ground=ground,
        store=store,
        vault=vault,
        network=Network(ground.chain, self_hotkey=ground.keys.hotkey_ss58),
        rates=Rates(settings.tao_usd_micros, settings.max_call_s),
        secrets=Secrets(store, clock, vault),
        failures=FailedTries(clock),
        health=Health(clock),
        registry=_registry(ground),
    )


def _registry(ground: Ground) -> Registry | None:
    settings = ground.settings
    if not settings.registry or settings.runtime == "process":
        return None
    place = Place.parse(settings.registry)
    tokens = RegistryTokens.open(
        ground.data_dir,
        issuer=ground.keys.hotkey_ss58,
        now_s=ground.clock.now_s(),
    )
    return Registry(
        place,
        tokens,
        ground.clock,
        user=settings.registry_user,
        password=settings.registry_password.get_secret_value(),
    )
