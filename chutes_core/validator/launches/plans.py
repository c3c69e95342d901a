"""What one attestation needs, put together from the store: keys, address, GPUs, profile.

Path: lifecycle and lights -> here -> attest. Invariant: secrets leave the vault only into a plan.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.launches import Launch
from chutes_core.validator.domain.verdicts import AttestPlan, Prebuilt
from chutes_core.validator.launches.ports import ChainView
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.store.database import Store
from chutes_core.wire.control import Inventory


class Plans:
    """Makes attestation plans."""

    def __init__(
        self,
        *,
        store: Store,
        chain: ChainView,
        vault: Vault,
        clock: Clock,
        self_hotkey: str,
        known: Callable[[], Mapping[str, Inventory]],
        light_profile: str = "light",
    ) -> None:
        self._store = store
        self._chain = chain
        self._vault = vault
        self._clock = clock
        self._self_hotkey = self_hotkey
        self._known = known
        self._light_profile = light_profile

    def first(self, launch: Launch) -> AttestPlan:
        """Return the plan of a launch's first proof: all GPUs that were claimed for it."""
        sealed = self._store.launches.secrets(launch.launch_id)
        reveal = self._vault.reveal
        return AttestPlan(
            launch_id=launch.launch_id,
            validator_hotkey=self._self_hotkey,
            miner_hotkey=launch.miner_hotkey,
            node_id=launch.node_id,
            host=launch.relay_host,
            port=launch.relay_port,
            ticket=reveal(launch.launch_id, "ticket", sealed.ticket),
            validator_private_key=reveal(launch.launch_id, "key", sealed.private_key),
            instance_public_key=bytes.fromhex(launch.instance_public_key),
            profile=launch.profile,
            gpus=launch.challenged,
            devnet=self._chain.devnet,
            started_at_s=self._clock.now_s(),
            scope="node" if launch.admission else "instance",
            left_out=self._left_out(launch),
        )

    def again(
        self, launch: Launch, *, prebuilt: Prebuilt | None = None, least_us: int = 0
    ) -> AttestPlan | None:
        """Return the plan of a light challenge of an active instance; None where it has no root."""
        sealed = self._store.launches.secrets(launch.launch_id)
        if sealed.root is None:
            return None
        return replace(
            self.first(launch),
            profile=self._light_profile,
            gpus=tuple(gpu for gpu in launch.challenged if not gpu.idle),
            scope="light",
            left_out=0,
            root=self._vault.reveal(launch.launch_id, "root", sealed.root),
            prebuilt=prebuilt,
            least_us=least_us,
        )

    def _left_out(self, launch: Launch) -> int:
        """Count the GPUs that the node says it has and that are not challenged now."""
        inventory = self._known().get(launch.miner_hotkey)
        if inventory is None:
            return 0
        challenged = {gpu.uuid for gpu in launch.challenged}
        return sum(gpu.uuid not in challenged for gpu in inventory.gpus)
