"""A launch from the miner's side: ask for one, report its events, read its state.

Path: miner -> api/routes/miner -> here -> lifecycle. Invariant: a launch is granted only for GPUs
that are leased to this validator now, free, admitted (the system chute excepted, which admits
them), and of a class that the chute takes; on a chain that is no devnet never to stand-in GPUs or
the process runtime.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict, Forbidden, Invalid, NotFound
from chutes_core.base.ids import new_id
from chutes_core.base.version import VERSION
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.images import Image
from chutes_core.validator.domain.launches import (
    REASON_TEXT,
    ClaimedGpu,
    Launch,
    LaunchState,
    Reason,
)
from chutes_core.validator.launches.admissions import Admissions
from chutes_core.validator.launches.cooloff import check_cool_off
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.validator.launches.ports import ChainView, Changed, Miner
from chutes_core.validator.launches.transfers import Passes, image_ref, pulled_ref
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.launches.wanted import Wanted
from chutes_core.validator.store.database import Store
from chutes_core.wire.control import (
    Handshake,
    ImageRef,
    LaunchEvent,
    LaunchGrant,
    LaunchList,
    LaunchRequest,
    LaunchStatus,
    WantedList,
)
from chutes_core.wire.sealing import KEY_BYTES, KeyPair
from chutes_core.wire.system import (
    ADMISSION_CHUTE_ID,
    ADMISSION_NAME,
    ADMISSION_VERSION,
    NO_IMAGE_SHA256,
    is_admission,
)

GONE_SHOWN_S = 3600


@dataclass(frozen=True)
class LaunchLimits:
    """Times of a launch (seconds) and the profile of its proof."""

    profile: str
    listen_deadline_s: int = 600
    start_deadline_s: int = 600
    lease_renewal_s: int = 900
    lease_blocks: int = 300
    rollover_grace_s: int = 120


@dataclass(frozen=True)
class _Target:
    """What a launch is of: a chute with its image, or the system chute without one."""

    chute_id: str
    version: str
    name: str
    image_id: str
    profile: str
    gpu_class: str
    chute: Chute | None = None
    image: Image | None = None


class Launches:
    """Everything that miners may ask about launches."""

    def __init__(
        self,
        *,
        store: Store,
        chain: ChainView,
        wanted: Wanted,
        leases: LeaseBook,
        admissions: Admissions,
        vault: Vault,
        clock: Clock,
        limits: LaunchLimits,
        passes: Passes | None = None,
        on_listening: Callable[[str], None],
        on_leaving: Callable[[str], None],
        on_gone: Callable[[str], None],
        changed: Changed,
    ) -> None:
        self._store = store
        self._chain = chain
        self._wanted = wanted
        self._leases = leases
        self._admissions = admissions
        self._vault = vault
        self._clock = clock
        self._limits = limits
        self._passes = passes
        self._on_listening = on_listening
        self._on_leaving = on_leaving
        self._on_gone = on_gone
        self._changed = changed
        self._granting = asyncio.Lock()

    async def wanted(self, hotkey: str) -> WantedList:
        """Return what misses instances now, and which of the miner's GPUs are admitted."""
        listed = await asyncio.to_thread(self._wanted.listed, self._clock.now_s())
        return WantedList(
            block=self._chain.block,
            lease_blocks=self._limits.lease_blocks,
            wanted=tuple(listed),
            admission=await asyncio.to_thread(self._admissions.listed, hotkey),
            handshake=Handshake(version=VERSION),
        )

    async def request(self, hotkey: str, request: LaunchRequest) -> LaunchGrant:
        """Grant one launch, or refuse with the reason.

        Raises:
            Forbidden: not_registered, test_proof_refused, no_lease.
            Conflict: not_wanted, not_serving, gpu_busy, lease_conflict, not_admitted,
                gpu_contested, gpu_uncalibrated, proof_failed_lately, proof_tries_used, cooling_off.
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
        elif event.event == "draining":
            self._on_leaving(launch_id)
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
        self._check_gpus(request)
        claims = _claims(request)
        uuids = tuple(claim.uuid for claim in claims)
        self._leases.require(
            request.leases, miner_hotkey=hotkey, gpu_uuids=uuids, block=self._chain.block
        )
        self._check_free(hotkey, uuids)
        self._admissions.check_tries(hotkey, uuids)
        now_s = self._clock.now_s()
        target = self._target(hotkey, request, now_s)
        if not miner.host:
            raise Conflict(
                "not_serving",
                "the finalized chain shows no axon of this hotkey yet",
                hint="ask again in a block or two",
            )
        launch_id, ticket, keys = new_id(), secrets.token_bytes(KEY_BYTES), KeyPair.generate()
        launch = Launch(
            launch_id=launch_id,
            chute_id=target.chute_id,
            version=target.version,
            image_id=target.image_id,
            miner_hotkey=hotkey,
            miner_coldkey=miner.coldkey,
            registered_at_block=miner.registered_at_block,
            node_id=request.node_id,
            gpu_uuids=tuple(gpu.uuid for gpu in request.gpus),
            gpu_class=target.gpu_class,
            relay_host=miner.host,
            relay_port=request.relay_port,
            profile=target.profile,
            stand_in=any(claim.stand_in for claim in claims),
            requested_at_s=now_s,
            deadline_s=now_s + self._limits.listen_deadline_s,
            challenged=claims,
        )
        self._store.launches.insert(
            launch,
            sealed_private_key=self._vault.seal(launch_id, "key", keys.private),
            sealed_ticket=self._vault.seal(launch_id, "ticket", ticket),
        )
        return self._describe(launch, target, keys, ticket, request)

    def _target(self, hotkey: str, request: LaunchRequest, now_s: int) -> _Target:
        uuids = [gpu.uuid for gpu in request.gpus]
        gpu_class = request.gpus[0].gpu_class
        if is_admission(request.chute_id):
            return _Target(
                chute_id=ADMISSION_CHUTE_ID,
                version=ADMISSION_VERSION,
                name=ADMISSION_NAME,
                image_id=ADMISSION_CHUTE_ID,
                profile=self._admissions.profile_for(hotkey, uuids),
                gpu_class=gpu_class,
            )
        if len({gpu.gpu_class for gpu in request.gpus}) != 1:
            raise Invalid("wrong_gpus", "the GPUs of one instance are of one class")
        check_cool_off(self._store.launches, hotkey, request.chute_id, now_s)
        self._admissions.check_called(
            hotkey, [gpu.uuid for gpu in (*request.gpus, *request.idle_gpus)]
        )
        gpu_class = self._admissions.require(hotkey, uuids) or gpu_class
        chute = self._wanted.require(
            request.chute_id, request.version, gpu_class, len(uuids), now_s
        )
        image = self._image(chute)
        return _Target(
            chute_id=chute.chute_id,
            version=chute.version,
            name=chute.name,
            image_id=chute.image_id,
            profile=self._limits.profile,
            gpu_class=gpu_class,
            chute=chute,
            image=image,
        )

    def _miner(self, hotkey: str) -> Miner:
        miner = self._chain.miner(hotkey)
        if miner is None:
            raise Forbidden("not_registered", "this hotkey is not registered on the subnet")
        return miner

    def _check_gpus(self, request: LaunchRequest) -> None:
        gpus = (*request.gpus, *request.idle_gpus)
        if len({gpu.uuid for gpu in gpus}) != len(gpus):
            raise Invalid("wrong_gpus", "one GPU is named twice")
        testing = request.runtime == "process" or any(gpu.stand_in for gpu in gpus)
        if testing and not self._chain.devnet:
            raise Forbidden("test_proof_refused", REASON_TEXT[Reason.TEST_PROOF_REFUSED])

    def _check_free(self, hotkey: str, uuids: tuple[str, ...]) -> None:
        busy = self._store.launches.busy_gpus(hotkey)
        if taken := set(uuids) & busy.keys():
            raise Conflict(
                "gpu_busy",
                f"GPU {min(taken)} already stands in launch {busy[min(taken)]}",
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
        target: _Target,
        keys: KeyPair,
        ticket: bytes,
        request: LaunchRequest,
    ) -> LaunchGrant:
        return LaunchGrant(
            launch_id=launch.launch_id,
            validator_public_key=keys.public.hex(),
            ticket=ticket.hex(),
            chute_id=launch.chute_id,
            version=launch.version,
            chute_name=target.name,
            gpu_uuids=launch.gpu_uuids,
            image=self._ref(target.image, launch, ticket, request),
            profile=launch.profile,
            allow_external_egress=target.chute is not None and target.chute.allow_external_egress,
            listen_deadline_s=self._limits.listen_deadline_s,
            lease_renewal_s=self._limits.lease_renewal_s,
            idle_gpu_uuids=tuple(gpu.uuid for gpu in launch.challenged if gpu.idle),
        )

    def _ref(
        self, image: Image | None, launch: Launch, ticket: bytes, request: LaunchRequest
    ) -> ImageRef:
        if image is None:
            return _no_image(request)
        if image.registry_ref and request.runtime == "docker":
            return pulled_ref(image, self._passes, launch.miner_hotkey)
        return image_ref(image, request.runtime, launch.launch_id, ticket)

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


def _claims(request: LaunchRequest) -> tuple[ClaimedGpu, ...]:
    """Return every GPU that is to be challenged: the instance's own, then the idle ones."""
    own = [(gpu, False) for gpu in request.gpus]
    beside = [(gpu, True) for gpu in request.idle_gpus]
    return tuple(
        ClaimedGpu(gpu.uuid, index, gpu.gpu_class, gpu.stand_in, idle)
        for index, (gpu, idle) in enumerate((*own, *beside))
    )


def _no_image(request: LaunchRequest) -> ImageRef:
    """Return what stands for the runner that every miner has itself."""
    return ImageRef(
        image_id=ADMISSION_CHUTE_ID,
        name=ADMISSION_NAME,
        kind=request.runtime,
        path="",
        sha256=NO_IMAGE_SHA256,
        size_bytes=0,
    )


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
