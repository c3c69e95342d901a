"""What the launches room needs from others, as Protocols; validator/app.py brings the real ones."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.domain.images import Image
from chutes_core.validator.domain.launches import Launch, LaunchState
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan, Proof


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


class LaunchStore(Protocol):
    """Launch records; `advance` is the only way a state changes."""

    def insert(self, launch: Launch, *, sealed_private_key: bytes, sealed_ticket: bytes) -> None:
        """Keep a new launch with its sealed secrets."""
        ...

    def get(self, launch_id: str) -> Launch | None:
        """Return one launch."""
        ...

    def secrets(self, launch_id: str) -> "SealedSecrets":
        """Return the sealed secrets of a launch."""
        ...

    def set_root(self, launch_id: str, sealed_root: bytes) -> None:
        """Keep the sealed proven root."""
        ...

    def advance(
        self, launch_id: str, from_state: LaunchState, to_state: LaunchState, **changes: object
    ) -> Launch:
        """Move a launch on, if it still is in ``from_state``.

        Raises:
            Conflict: it is not, or the table has no such step.
        """
        ...

    def open(self) -> Sequence[Launch]:
        """Return every launch that is not gone."""
        ...

    def by_miner(self, hotkey: str, *, include_gone_since_s: int) -> Sequence[Launch]:
        """Return a miner's open launches and those that went since a time."""
        ...

    def prolong(self, launch_id: str, lease_until_s: int) -> None:
        """Record a renewal that the instance has confirmed."""
        ...


class SealedSecrets(Protocol):
    """The sealed columns of one launch."""

    sealed_private_key: bytes
    sealed_ticket: bytes
    sealed_root: bytes | None


class ProofStore(Protocol):
    """Where proofs are kept."""

    def insert(self, proof: Proof) -> None:
        """Keep one proof."""
        ...


class Catalog(Protocol):
    """Chutes and images that launches are for."""

    def chute(self, chute_id: str) -> Chute | None:
        """Return the current version of a chute, deleted ones included."""
        ...

    def live_chutes(self) -> Sequence[Chute]:
        """Return all chutes that are not deleted."""
        ...

    def image(self, image_id: str) -> Image | None:
        """Return an image."""
        ...


class Attestor(Protocol):
    """Runs one attestation outside the event loop."""

    async def attest(self, plan: AttestPlan) -> Attestation:
        """Challenge an instance's GPUs and judge the answers."""
        ...


DemandView = Callable[[], Mapping[str, ChuteDemand]]
SecretsOf = Callable[[Chute], Mapping[str, str]]
Changed = Callable[[], Awaitable[None]]
