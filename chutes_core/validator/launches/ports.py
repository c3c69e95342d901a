"""What the launches room needs from its siblings and from the chain, as Protocols.

validator/app.py brings the real ones; the store lies below this room and is used as it is.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan, Prebuilt


@dataclass(frozen=True)
class Miner:
    """A registered miner as the finalized metagraph shows it."""

    hotkey: str
    coldkey: str
    registered_at_block: int
    host: str


class ChainView(Protocol):
    """The last finalized picture of the subnet."""

    @property
    def devnet(self) -> bool:
        """Whether the chain's genesis is a devnet's."""
        ...

    @property
    def block(self) -> int:
        """The last finalized block that was seen."""
        ...

    def miner(self, hotkey: str) -> Miner | None:
        """Return a registered neuron, or None."""
        ...


Passed = Callable[[int], None]
"""Told the place in a list of plans of one that has passed, before the others have ended."""


class Attestor(Protocol):
    """Runs one attestation outside the event loop."""

    async def attest(self, plan: AttestPlan) -> Attestation:
        """Challenge an instance's GPUs and judge the answers."""
        ...

    async def attest_together(
        self, plans: Sequence[AttestPlan], *, passed: Passed | None = None
    ) -> tuple[Attestation, ...]:
        """Challenge several at the same instant; ``passed`` is told of each that has, at once."""
        ...

    async def prebuild(
        self, plan: AttestPlan, devices: tuple[str, ...], rtt_us: int
    ) -> Prebuilt | None:
        """Build an instance's next challenge ahead, where that is possible."""
        ...


DemandView = Callable[[], Mapping[str, ChuteDemand]]
SecretsOf = Callable[[Chute], Mapping[str, str]]
InFlight = Callable[[str], int]
Changed = Callable[[], Awaitable[None]]
