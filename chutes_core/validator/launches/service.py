"""A launch from the miner's side: ask for one, report its events, read its state.

Path: miner -> api/routes/miner -> here -> lifecycle. Invariant: a launch is granted only for GPUs
that are leased to this validator now, free, and of a class that the chute admits; on a chain that
is no devnet never to stand-in GPUs or the process runtime.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict, Forbidden, Invalid, NotFound
from chutes_core.base.ids import new_id
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.images import Image
from chutes_core.validator.domain.launches import REASON_TEXT, Launch, LaunchState, Reason
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.validator.launches.ports import ChainView, Changed, Miner
from chutes_core.validator.launches.transfers import image_ref
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.launches.wanted import Wanted
from chutes_core.validator.store.database import Store
from chutes_core.wire.control import (
    ImageRef,
    LaunchEvent,
    LaunchGrant,
    LaunchList,
    LaunchRequest,
    LaunchStatus,
    WantedList,
)
from chutes_core.wire.sealing import KEY_BYTES, KeyPair

GONE_SHOWN_S = 3600


@dataclass(frozen=True)
class LaunchLimits:
    """Times of a launch (seconds) and the profile of its proof."""

    profile: str
    listen_deadline_s: int = 600
    start_deadline_s: int = 600
    lease_renewal_s: int = 900
    lease_blocks: int = 300


class Launches:
    """Everything that miners may ask about launches."""

    def __init__(
        self,
        *,
        store: Store,
        chain: ChainView,
        wanted: Wanted,
        leases: LeaseBook,
        vault: Vault,
        clock: Clock,
        limits: LaunchLimits,
        on_listening: Callable[[str], None],
        on_gone: Callable[[str], None],
        changed: Changed,
    ) -> None:
        self._store = store
        self._chain = chain
        self._wanted = wanted
        self._leases = leases
        self._vault = vault
        self._clock = clock
        self._limits = limits
        self._on_listening = on_listening
        self._on_gone = on_gone
        self._changed = changed
        self._granting = asyncio.Lock()

    async def wanted(self) -> WantedList:
        """Return what misses instances now."""
        listed = await asyncio.to_thread(self._wanted.listed, self._clock.now_s())
        return WantedList(
            block=self._chain.block, lease_blocks=self._limits.lease_blocks, wanted=tuple(listed)
        )

    async def request(self, hotkey: str, request: LaunchRequest) -> LaunchGrant:
        """Grant one launch, or refuse with the reason.

        Raises:
            Forbidden: not_registered, test_proof_refused, no_lease.
            Conflict: not_wanted, gpu_busy, lease_conflict.
            Invalid: wrong_gpus.
        """
        async with self._granting:  # two requests must not both take the last wanted place
            grant = await asyncio.to_thread(self._grant, hotkey, request)
        logger.info("launch granted", launch=grant.launch_id, miner=hotkey, chute=grant.chute_name)
        return grant

    async def event(self, hotkey: str, launch_id: str, event: LaunchEvent) -> LaunchStatus:
        """Take a miner's report on one of its launches; a repeated report changes nothing.

        Raises:
            NotFound: the launch is not this miner's.
            Invalid: a listening event without a public key.
        """
        launch = await asyncio.to_thread(self._own, hotkey, launch_id)
        if event.event == "gone":
            launch = await asyncio.to_thread(self._end, launch, event)
            self._on_gone(launch_id)
            await self._changed()
        elif launch.state is LaunchState.REQUESTED:
            if event.instance_public_key is None:
                raise Invalid("no_public_key", "a listening instance has a public key")
            launch = await asyncio.to_thread(
                self._store.launches.advance,
                launch_id,
                LaunchState.REQUESTED,
                LaunchState.LISTENING,
                instance_public_key=event.instance_public_key,
            )
            self._on_listening(launch_id)
        return status_of(launch)

    async def listed(self, hotkey: str) -> LaunchList:
        """Return a miner's launches: open ones, and those that ended within the last hour."""
        since_s = self._clock.now_s() - GONE_SHOWN_S
        launches = await asyncio.to_thread(
            self._store.launches.by_miner, hotkey, include_gone_since_s=since_s
        )
        return LaunchList(launches=tuple(status_of(launch) for launch in launches))

    def _grant(self, hotkey: str, request: LaunchRequest) -> LaunchGrant:
        miner = self._miner(hotkey)
        self._check_class(request)
        uuids = tuple(gpu.uuid for gpu in request.gpus)
        self._leases.require(
            request.leases, miner_hotkey=hotkey, gpu_uuids=uuids, block=self._chain.block
        )
        self._check_free(hotkey, uuids)
        now_s = self._clock.now_s()
        gpu_class = request.gpus[0].gpu_class
        chute = self._wanted.require(
            request.chute_id, request.version, gpu_class, len(uuids), now_s
        )
        launch_id, ticket, keys = new_id(), secrets.token_bytes(KEY_BYTES), KeyPair.generate()
        image = image_ref(self._image(chute), request.runtime, launch_id, ticket)
        launch = Launch(
            launch_id=launch_id,
            chute_id=chute.chute_id,
            version=chute.version,
            image_id=chute.image_id,
            miner_hotkey=hotkey,
            miner_coldkey=miner.coldkey,
            registered_at_block=miner.registered_at_block,
            node_id=request.node_id,
            gpu_uuids=uuids,
            gpu_class=gpu_class,
            relay_host=miner.host,
            relay_port=request.relay_port,
            profile=self._limits.profile,
            stand_in=any(gpu.stand_in for gpu in request.gpus),
            requested_at_s=now_s,
            deadline_s=now_s + self._limits.listen_deadline_s,
        )
        self._store.launches.insert(
            launch,
            sealed_private_key=self._vault.seal(launch_id, "key", keys.private),
            sealed_ticket=self._vault.seal(launch_id, "ticket", ticket),
        )
        return self._describe(launch, chute, image, keys, ticket, request)

    def _miner(self, hotkey: str) -> Miner:
        miner = self._chain.miner(hotkey)
        if miner is None:
            raise Forbidden("not_registered", "this hotkey is not registered on the subnet")
        return miner

    def _check_class(self, request: LaunchRequest) -> None:
        if len({gpu.gpu_class for gpu in request.gpus}) != 1:
            raise Invalid("wrong_gpus", "the GPUs of one instance are of one class")
        if len({gpu.uuid for gpu in request.gpus}) != len(request.gpus):
            raise Invalid("wrong_gpus", "one GPU is named twice")
        testing = request.runtime == "process" or any(gpu.stand_in for gpu in request.gpus)
        if testing and not self._chain.devnet:
            raise Forbidden("test_proof_refused", REASON_TEXT[Reason.TEST_PROOF_REFUSED])

    def _check_free(self, hotkey: str, uuids: tuple[str, ...]) -> None:
        for launch in self._store.launches.open():
            taken = set(uuids) & set(launch.gpu_uuids)
            if taken and launch.miner_hotkey == hotkey:
                raise Conflict(
                    "gpu_busy",
                    f"GPU {min(taken)} already serves launch {launch.launch_id}",
                    hint="report that launch gone if its instance has ended",
                )

    def _image(self, chute: Chute) -> Image:
        image = self._store.images.get(chute.image_id)
        if image is None or image.state != "built":
            raise Conflict("not_wanted", "the chute's image is not there any more")
        return image

    def _describe(
        self,
        launch: Launch,
        chute: Chute,
        image: ImageRef,
        keys: KeyPair,
        ticket: bytes,
        request: LaunchRequest,
    ) -> LaunchGrant:
        return LaunchGrant(
            launch_id=launch.launch_id,
            validator_public_key=keys.public.hex(),
            ticket=ticket.hex(),
            chute_id=chute.chute_id,
            version=chute.version,
            chute_name=chute.name,
            gpu_uuids=launch.gpu_uuids,
            image=image,
            profile=launch.profile,
            allow_external_egress=chute.allow_external_egress,
            listen_deadline_s=self._limits.listen_deadline_s,
            lease_renewal_s=self._limits.lease_renewal_s,
        )

    def _own(self, hotkey: str, launch_id: str) -> Launch:
        launch = self._store.launches.get(launch_id)
        if launch is None or launch.miner_hotkey != hotkey:
            raise NotFound("no_such_launch", f"you have no launch {launch_id}")
        return launch

    def _end(self, launch: Launch, event: LaunchEvent) -> Launch:
        while launch.state is not LaunchState.GONE:
            try:
                return self._store.launches.advance(
                    launch.launch_id,
                    launch.state,
                    LaunchState.GONE,
                    reason=Reason.MINER_ENDED,
                    detail=f"{event.reason}: {event.detail}"[:4000],
                    gone_at_s=self._clock.now_s(),
                )
            except Conflict:  # it moved between our read and our write: look again
                launch = self._own(launch.miner_hotkey, launch.launch_id)
        return launch


def status_of(launch: Launch) -> LaunchStatus:
    """Return a launch as its miner may see it."""
    explained = REASON_TEXT[launch.reason]
    detail = f"{explained}. {launch.detail}" if launch.detail else explained
    return LaunchStatus(
        launch_id=launch.launch_id,
        chute_id=launch.chute_id,
        gpu_uuids=launch.gpu_uuids,
        state=launch.state.value,
        reason=launch.reason.value,
        detail=detail,
    )
