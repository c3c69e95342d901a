"""Control calls between miner and validator: HTTP JSON, btauth/1 signed, replies signed.

The validator queries a miner's inventory (`GET /inventory` on the miner); the miner asks the
validator what is wanted, requests launches and reports their events. Every endpoint's method and
path stands in docs/architecture/03-protocols.md.
"""

from typing import Annotated, Literal

from pydantic import Field

from chutes_core.wire import PROTOCOL_MAX, PROTOCOL_MIN
from chutes_core.wire.lease import Lease
from chutes_core.wire.model import GpuUuid, HexKey, Hotkey, Message, RecordId

RuntimeName = Literal["docker", "process"]
LOG_TAIL_CHARS = 64 * 1024


class Handshake(Message):
    """Protocol range and software version of the sender, in every first message."""

    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX
    version: str = Field(max_length=40)


class GpuHealth(Message):
    """How well a GPU is, as its driver and the kernel say; a claim like everything of a miner."""

    problems: tuple[Annotated[str, Field(max_length=40)], ...] = Field(default=(), max_length=16)
    temperature_c: int = 0
    used_bytes: int = Field(default=0, ge=0)
    ecc_uncorrected: int = Field(default=0, ge=0)
    throttled: tuple[Annotated[str, Field(max_length=40)], ...] = Field(default=(), max_length=16)
    xids: tuple[int, ...] = Field(default=(), max_length=16)
    processes: int = Field(default=0, ge=0)


class HostFacts(Message):
    """What a node's host has; bandwidth is None until an image was fetched."""

    cpus: int = Field(ge=1)
    architecture: str = Field(max_length=40)
    memory_bytes: int = Field(ge=0)
    memory_free_bytes: int = Field(ge=0)
    disk_bytes: int = Field(ge=0)
    disk_free_bytes: int = Field(ge=0)
    measured_bytes_per_s: int | None = Field(default=None, ge=0)


class GpuClaim(Message):
    """One GPU as the miner claims it; nothing here is proven until graval has run."""

    uuid: GpuUuid
    index: int = Field(ge=0, lt=64)
    gpu_class: str = Field(max_length=40)
    vram_bytes: int = Field(ge=0)
    stand_in: bool = False
    launch_id: RecordId | None = None
    health: GpuHealth | None = None


class Inventory(Message):
    """What a miner's node has, runs and has leased; answered to validators with a permit."""

    handshake: Handshake
    hotkey: Hotkey
    node_id: str = Field(max_length=64)
    runtime: RuntimeName
    relay_port: int = Field(ge=1, le=65535)
    gpus: tuple[GpuClaim, ...] = Field(max_length=64)
    leases: tuple[Lease, ...] = Field(max_length=256)
    hourly_cost_usd_micros: int = Field(default=0, ge=0)
    server_time_s: int
    host: HostFacts | None = None


MAX_BOUNTY = 8


class WantedChute(Message):
    """A chute that needs more instances than it has.

    ``bounty`` grows with the time for which callers have waited: 0 where none does.
    """

    chute_id: RecordId
    version: RecordId
    image_id: RecordId
    gpu_count: int = Field(ge=1, le=8)
    gpu_classes: tuple[str, ...]
    rao_per_hour: int = Field(ge=0)
    missing: int = Field(ge=1)
    bounty: int = Field(default=0, ge=0, le=MAX_BOUNTY)


class AdmissionWanted(Message):
    """The system chute (wire/system.py): every idle GPU that is not ``admitted`` is to be attested.

    One launch takes all idle GPUs of the node at once, those admitted too.
    """

    chute_id: RecordId
    version: RecordId
    profile: str = Field(max_length=40)
    admitted: tuple[GpuUuid, ...] = Field(default=(), max_length=256)


class WantedList(Message):
    """Everything a validator wants now, at which block it said so, and which protocol it speaks."""

    block: int
    lease_blocks: int = Field(ge=1)
    wanted: tuple[WantedChute, ...]
    admission: AdmissionWanted | None = None
    handshake: Handshake | None = None


class Wake(Message):
    """How often more came to be wanted at a validator: another number means to ask anew."""

    number: int = Field(ge=0)


class LaunchRequest(Message):
    """A miner offers GPUs, each with its lease to this validator, for one instance of a chute.

    ``idle_gpus`` of the same host are challenged together with ``gpus`` and get no chute.
    """

    handshake: Handshake
    chute_id: RecordId
    version: RecordId
    node_id: str = Field(max_length=64)
    runtime: RuntimeName
    relay_port: int = Field(ge=1, le=65535)
    gpus: tuple[GpuClaim, ...] = Field(min_length=1, max_length=64)
    leases: tuple[Lease, ...] = Field(min_length=1, max_length=64)
    idle_gpus: tuple[GpuClaim, ...] = Field(default=(), max_length=64)


class ImageRef(Message):
    """Where a launch's image comes from: GET `path` on the validator, check `sha256`.

    For kind ``docker`` the file is an archive of the built image, fetched with ``token``, and
    ``image_digest`` is the engine's id (``sha256:…``) that loading it must give. With a
    ``registry_ref`` (``host/path@sha256:…``) the image is pulled from there instead; ``sha256`` is
    then its manifest's, and ``token`` a bearer token for that registry, or empty.
    """

    image_id: RecordId
    name: str = Field(max_length=200)
    kind: RuntimeName
    path: str = Field(max_length=200)
    sha256: HexKey
    size_bytes: int = Field(ge=0)
    image_digest: str = Field(default="", max_length=80)
    token: str = Field(default="", max_length=4096)
    registry_ref: str = Field(default="", max_length=400)


class LaunchGrant(Message):
    """The validator's answer: a single-use launch, bound to hotkey, version and image digest."""

    launch_id: RecordId
    validator_public_key: HexKey
    ticket: HexKey
    chute_id: RecordId
    version: RecordId
    chute_name: str
    gpu_uuids: tuple[GpuUuid, ...]
    image: ImageRef
    profile: str
    listen_deadline_s: int
    lease_renewal_s: int
    allow_external_egress: bool = False
    idle_gpu_uuids: tuple[GpuUuid, ...] = ()


class LaunchEvent(Message):
    """What a miner reports of its launch: it listens, wants to leave (draining), or has gone."""

    event: Literal["listening", "draining", "gone"]
    instance_public_key: HexKey | None = None
    reason: str = Field(default="", max_length=64)
    detail: str = Field(default="", max_length=4000)


class LaunchStatus(Message):
    """One launch as its miner may see it, with the reason of its end."""

    launch_id: RecordId
    chute_id: RecordId
    gpu_uuids: tuple[GpuUuid, ...]
    state: str
    reason: str = ""
    detail: str = ""


class LogTail(Message):
    """The last part of what an instance printed, as its miner keeps it."""

    launch_id: RecordId
    text: str = Field(max_length=LOG_TAIL_CHARS)


class LaunchList(Message):
    """A miner's launches: all that are open, and those that ended lately."""

    launches: tuple[LaunchStatus, ...]


DialResult = Literal["ok", "refused", "timeout", "other"]


class DialBackRequest(Message):
    """A miner's question: do these ports of its host answer from where the validator is?"""

    port: int = Field(ge=1, le=65535)
    relay_port: int = Field(ge=1, le=65535)


class DialBack(Message):
    """What came of dialling; ``other``: something answered that is no miner."""

    host: str = Field(max_length=64)
    port: DialResult
    relay_port: DialResult
    server_time_s: int


class LeaseList(Message):
    """Leases that a validator knows; their signatures are the miners', so they need no trust."""

    leases: tuple[Lease, ...] = Field(max_length=10_000)


class ErrorBody(Message):
    """Every error of every HTTP server of ours."""

    detail: str
    code: str
    hint: str = ""
