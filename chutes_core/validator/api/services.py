"""What the user-facing routes need, collected once by validator/app.py."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chutes_core.base.clock import Clock
from chutes_core.base.failures import FailedTries
from chutes_core.validator.accounts.secrets import Secrets
from chutes_core.validator.accounts.service import Accounts
from chutes_core.validator.billing.ledger import Ledger
from chutes_core.validator.billing.rates import Rates
from chutes_core.validator.catalog.chutes import Chutes
from chutes_core.validator.catalog.images import Images
from chutes_core.validator.domain.launches import Launch
from chutes_core.validator.jobs.ports.reach import Reach
from chutes_core.validator.jobs.service import Jobs
from chutes_core.validator.store.database import Store


@dataclass(frozen=True)
class Services:
    """The services behind the routes.

    ``wake`` is called on the event loop with the id of a chute that somebody waits for, again and
    again while it waits; ``tail`` reads an instance's last output at its miner; ``poll_s`` is how
    often a stream looks for news.
    """

    store: Store
    accounts: Accounts
    images: Images
    chutes: Chutes
    ledger: Ledger
    rates: Rates
    clock: Clock
    failures: FailedTries
    secrets: Secrets
    tail: Callable[[Launch], Awaitable[str]]
    wake: Callable[[str], None]
    jobs: Jobs
    reach: Reach
    poll_s: float = 0.5
