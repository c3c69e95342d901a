"""The steps that bring one granted launch up: bundle, image, instance, ready line.

Used by the deployer, which keeps the books. Invariant: the instance's environment is made here and
holds the grant's public facts only; nothing of the miner's own settings or keys goes into it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from chutes_core.base.errors import ProtocolError
from chutes_core.miner.discovery import Validator
from chutes_core.miner.inventory import Node
from chutes_core.miner.placement import Launch
from chutes_core.miner.runtime.base import (
    ImageBundle,
    InstanceSpec,
    PreparedImage,
    Ready,
    Runtime,
)
from chutes_core.miner.validator_api import ValidatorApi
from chutes_core.wire.control import GpuClaim, ImageRef, LaunchGrant, LaunchRequest
from chutes_core.wire.lease import Lease
from chutes_core.wire.system import NO_IMAGE_SHA256


class Images(Protocol):
    """Where images come from."""

    async def get(self, validator: Validator, image: ImageRef) -> ImageBundle:
        """Return the fetched image, its digest checked.

        Raises:
            ChutesError: it cannot be had.
        """
        ...

    async def used(self, image: ImageRef) -> None:
        """Take note that the image is prepared, or no use: its file may go."""
        ...


class Cache(Protocol):
    """Where chutes keep their models from launch to launch."""

    async def lend(self, validator_hotkey: str, chute_id: str, gpu_count: int) -> Path | None:
        """Return the folder for a launch, or None."""
        ...


class NoCache:
    """No folder for anybody."""

    async def lend(self, validator_hotkey: str, chute_id: str, gpu_count: int) -> Path | None:
        """Return None."""
        return None


class Launcher:
    """Asks for launches and starts what was granted."""

    def __init__(
        self,
        *,
        node: Node,
        runtime: Runtime,
        api: ValidatorApi,
        images: Images,
        graval_python: str,
        started: Callable[[InstanceSpec], None] = lambda spec: None,
        cache: Cache | None = None,
    ) -> None:
        self._node = node
        self._runtime = runtime
        self._api = api
        self._images = images
        self._started = started
        self._cache = cache or NoCache()
        self._devices = frozenset(gpu.uuid for gpu in node.gpus if not gpu.stand_in)
        self._graval_python = graval_python

    async def ask(
        self, action: Launch, validator: Validator, leases: Sequence[Lease]
    ) -> LaunchGrant:
        """Ask a validator for the launch.

        Raises:
            ChutesError: the validator's refusal, or it cannot be reached.
        """
        request = LaunchRequest(
            handshake=self._node.handshake,
            chute_id=action.chute.chute_id,
            version=action.chute.version,
            node_id=self._node.node_id,
            runtime=self._node.runtime,
            relay_port=self._node.relay_port,
            gpus=self._claims(action.gpu_uuids),
            idle_gpus=self._claims(action.idle_gpus),
            leases=tuple(leases),
        )
        return await self._api.request_launch(validator, request)

    def _claims(self, gpu_uuids: Sequence[str]) -> tuple[GpuClaim, ...]:
        return tuple(gpu.claim() for gpu in self._node.gpus if gpu.uuid in gpu_uuids)

    async def bring_up(self, grant: LaunchGrant, action: Launch, validator: Validator) -> Ready:
        """Fetch, prepare and start; return where the instance listens.

        Raises:
            ChutesError: a step failed; its code is the reason.
        """
        self._check(grant, action)
        spec = InstanceSpec(
            launch_id=grant.launch_id,
            image=await self._image(grant.image, validator),
            runner_env=self._runner_env(grant),
            gpu_count=len(grant.gpu_uuids),
            device_uuids=tuple(u for u in grant.gpu_uuids if u in self._devices),
            allow_egress=grant.allow_external_egress,
            cache=await self._folder(grant, validator),
        )
        await self._runtime.start(spec)
        self._started(spec)
        return await self._runtime.wait_ready(grant.launch_id, grant.listen_deadline_s)

    async def _folder(self, grant: LaunchGrant, validator: Validator) -> Path | None:
        if grant.image.sha256 == NO_IMAGE_SHA256:
            return None
        return await self._cache.lend(validator.hotkey, grant.chute_id, len(grant.gpu_uuids))

    async def _image(self, image: ImageRef, validator: Validator) -> PreparedImage:
        known = await self._runtime.known(image)
        if known is not None:
            return known
        if image.registry_ref:
            return await self._runtime.pull(image)
        bundle = await self._images.get(validator, image)
        try:
            prepared = await self._runtime.prepare(bundle)
        except ProtocolError:
            await self._images.used(image)  # it would be refused again
            raise
        await self._images.used(image)
        return prepared

    def _check(self, grant: LaunchGrant, action: Launch) -> None:
        asked = (action.chute.chute_id, action.chute.version)
        gpus = (set(action.gpu_uuids), set(action.idle_gpus))
        granted = (set(grant.gpu_uuids), set(grant.idle_gpu_uuids))
        if asked != (grant.chute_id, grant.version) or gpus != granted:
            raise ProtocolError("bad_grant", "the grant is for something that was not asked for")
        if grant.image.kind != self._runtime.name:
            raise ProtocolError("bad_grant", f"the image is for the {grant.image.kind} runtime")

    def _runner_env(self, grant: LaunchGrant) -> Mapping[str, str]:
        own = [self._slot(gpu_uuid, idle=False) for gpu_uuid in grant.gpu_uuids]
        beside = [self._slot(gpu_uuid, idle=True) for gpu_uuid in grant.idle_gpu_uuids]
        devices = [u for u in grant.gpu_uuids if u in self._devices]
        environ = {
            "CHUTES_RUNNER_LAUNCH_ID": grant.launch_id,
            "CHUTES_RUNNER_VALIDATOR_PUBLIC_KEY": grant.validator_public_key,
            "CHUTES_RUNNER_HOST": "127.0.0.1",
            "CHUTES_RUNNER_PORT": "0",
            "CHUTES_RUNNER_GPUS": json.dumps([*own, *beside]),
            "CHUTES_RUNNER_GRAVAL_PYTHON": self._graval_python,
            "CHUTES_RUNNER_FIRST_LEASE_S": str(grant.listen_deadline_s + grant.lease_renewal_s),
            "CHUTES_EXECUTION_CONTEXT": "REMOTE",
        }
        if devices:  # a process sees no other device; the provers get each its own
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        return environ

    def _slot(self, gpu_uuid: str, *, idle: bool) -> dict[str, object]:
        gpu = next(gpu for gpu in self._node.gpus if gpu.uuid == gpu_uuid)
        slot: dict[str, object] = {
            "index": gpu.index,
            "uuid": gpu_uuid,
            "declare": gpu.gpu_class if gpu.stand_in else None,
        }
        return {**slot, "idle": True} if idle else slot
