"""The messages of the protocol: frozen values with canonical bytes.

Path: verifier builds `Leg1` and `Leg2` -> prover answers each with an `Answer` -> verifier makes a
`Verdict`. Both sides derive the seed from the `SeedContext` that leg 1 carries, so a seed field
that changes on its way changes every row.

Invariant: a value that exists is well-formed (sizes and ranges are checked when it is made), and
its bytes are canonical (`graval.canonical`).
"""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from graval import VERSION
from graval.canonical import Canonical
from graval.errors import Malformed
from graval.profile import MAX_LAYERS, MAX_ROWS, MAX_STAGES, MAX_TAGS

KEY_BYTES = 32
SEED_BYTES = 32
TAG_BYTES = 8
MAX_TEXT_BYTES = 256
MAX_GPUS = 64


def domain_hash(domain: str, data: bytes) -> bytes:
    """BLAKE2b-256 of data under a domain and the protocol version."""
    return hashlib.blake2b(f"graval/{VERSION} {domain}\0".encode() + data, digest_size=32).digest()


def _require(ok: bool, field: str) -> None:  # a condition, not an option
    if not ok:
        raise Malformed("value", f"{field} is out of range")


@dataclass(frozen=True)
class DeviceInfo(Canonical):
    """What a prover says of its device. Claims, checked against `graval.gpus`, never proof.

    Args:
        short_name: class in the GPU table, or "" when the driver's name is not in it.
        name: the driver's device string.
        uuid: the driver's UUID, or one of a stand-in.
        memory_bytes: total memory.
        sm_count: streaming multiprocessors.
        compute_capability: as "9.0".
        clock_mhz: maximum SM clock; 0 when unknown.
        power_limit_w: enforced power limit; 0 when unknown.
        pci_bus_id: as "00000000:65:00.0"; "" when unknown.
        driver: driver version; "" when unknown.
        mig: the device is a MIG slice, or MIG mode is on.
        ecc: ECC is on.
        backend: triton, torch or numpy.
        stand_in: a CPU that was told to pose as this class (tests and devnets only).
    """

    TAG: ClassVar[str] = "device"

    short_name: str
    name: str
    uuid: str
    memory_bytes: int
    sm_count: int
    compute_capability: str
    clock_mhz: int = 0
    power_limit_w: int = 0
    pci_bus_id: str = ""
    driver: str = ""
    mig: bool = False
    ecc: bool = False
    backend: str = "numpy"
    stand_in: bool = False

    def __post_init__(self) -> None:
        for field in ("short_name", "name", "uuid", "pci_bus_id", "driver", "backend"):
            _require(len(getattr(self, field)) <= MAX_TEXT_BYTES, field)


@dataclass(frozen=True)
class SeedContext(Canonical):
    """Everything that a seed binds: who asks whom, for which key, on which GPU, how much, when.

    Args:
        nonce: fresh from the verifier, 16 to 64 bytes.
        validator_hotkey: ss58 address.
        miner_hotkey: ss58 address.
        instance_id: of the instance or the node attestation.
        node_id: of the host.
        instance_public_key: the instance's ephemeral X25519 key, 32 bytes.
        gpu_index: this GPU among those challenged together.
        gpu_count: how many are challenged together.
        device: as the prover described it.
        profile_name: which profile.
        rows: rows of 1 KiB to fill.
        time_s: Unix time of the challenge.
    """

    TAG: ClassVar[str] = "seed"

    nonce: bytes
    validator_hotkey: str
    miner_hotkey: str
    instance_id: str
    node_id: str
    instance_public_key: bytes
    gpu_index: int
    gpu_count: int
    device: DeviceInfo
    profile_name: str
    rows: int
    time_s: int

    def __post_init__(self) -> None:
        _require(16 <= len(self.nonce) <= 64, "nonce")
        _require(len(self.instance_public_key) == KEY_BYTES, "instance_public_key")
        _require(0 <= self.gpu_index < self.gpu_count <= MAX_GPUS, "gpu_index")
        _require(1 <= self.rows <= MAX_ROWS, "rows")
        for field in ("validator_hotkey", "miner_hotkey", "instance_id", "node_id", "profile_name"):
            _require(len(getattr(self, field)) <= MAX_TEXT_BYTES, field)


def derive_seed(context: SeedContext, layers: int) -> bytes:
    """The 32-byte seed of a fill: a hash of the whole context and of the row's cost."""
    return domain_hash("fill", context.to_bytes() + layers.to_bytes(8, "big"))


def _check_tags(tags: tuple[bytes, ...]) -> None:
    _require(1 <= len(tags) <= MAX_STAGES, "tags")
    size = len(tags[0])
    _require(size % TAG_BYTES == 0 and 1 <= size // TAG_BYTES <= MAX_TAGS, "tags")
    _require(all(len(stage) == size for stage in tags), "tags")


@dataclass(frozen=True)
class Leg1(Canonical):
    """Fill the memory and find the first needles.

    Args:
        context: what the seed binds.
        layers: T, the cost of a row.
        commitment: hash of the secret that chose needles and decoys; revealed for an audit.
        key: the first stage's key, 32 bytes.
        tags: one bytes value a stage: masked tags of 8 bytes, real ones and decoys in secret order.
    """

    TAG: ClassVar[str] = "leg1"

    context: SeedContext
    layers: int
    commitment: bytes
    key: bytes
    tags: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _require(1 <= self.layers <= MAX_LAYERS, "layers")
        _require(len(self.commitment) == KEY_BYTES, "commitment")
        _require(len(self.key) == KEY_BYTES, "key")
        _check_tags(self.tags)

    @property
    def seed(self) -> bytes:
        """The seed of the fill."""
        return derive_seed(self.context, self.layers)

    @property
    def challenge_id(self) -> bytes:
        """32 bytes that name this challenge: a hash of the whole leg."""
        return domain_hash("challenge", self.to_bytes())


@dataclass(frozen=True)
class Leg2(Canonical):
    """Read the whole memory once a stage, each stage's key hidden in the one before.

    Args:
        challenge_id: of the leg 1 whose fill this leg scans.
        key: a fresh key for the first stage, 32 bytes.
        tags: one bytes value a stage, as in `Leg1`.
    """

    TAG: ClassVar[str] = "leg2"

    challenge_id: bytes
    key: bytes
    tags: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _require(len(self.challenge_id) == KEY_BYTES, "challenge_id")
        _require(len(self.key) == KEY_BYTES, "key")
        _check_tags(self.tags)


@dataclass(frozen=True)
class Answer(Canonical):
    """The prover's reply to a leg: the 32-byte digest at the end of its chain.

    Args:
        challenge_id: of the leg 1 that started it.
        leg: 1 or 2.
        digest: 32 bytes; session keys are made of these, so they never travel in the clear.
    """

    TAG: ClassVar[str] = "answer"

    challenge_id: bytes
    leg: int
    digest: bytes

    def __post_init__(self) -> None:
        _require(len(self.challenge_id) == KEY_BYTES, "challenge_id")
        _require(self.leg in (1, 2), "leg")
        _require(len(self.digest) == KEY_BYTES, "digest")


@dataclass(frozen=True)
class Verdict(Canonical):
    """What the verifier concluded, for one GPU.

    Args:
        accepted: both answers right and in time.
        outcome: ``accepted``; ``wrong`` or ``malformed`` (failures); ``late`` (inconclusive).
        reason: stable code of the first thing that was not right, "" when accepted.
        leg1_us: time from sending leg 1 to its answer, at the verifier's socket.
        leg2_us: likewise for leg 2.
        deadline1_us: what leg1_us had to meet.
        deadline2_us: what leg2_us had to meet.
        gpu_class: short name that the device claims.
        gpu_uuid: the UUID that the device claims.
        profile: name of the profile.
        rows: rows of 1 KiB that were asked for.
        stages: stages of leg 2.
        scope: ``node`` (all GPUs of the host at once), ``instance`` or ``gpu``.
        test: the profile is the test one or the device a stand-in: nothing about hardware.
        challenge_id: which challenge.
    """

    TAG: ClassVar[str] = "verdict"

    accepted: bool
    outcome: str
    reason: str
    leg1_us: int
    leg2_us: int
    deadline1_us: int
    deadline2_us: int
    gpu_class: str
    gpu_uuid: str
    profile: str
    rows: int
    stages: int
    scope: str
    test: bool
    challenge_id: bytes

    @property
    def inconclusive(self) -> bool:
        """Nothing was shown either way: another try is allowed."""
        return self.outcome == "late"

    @property
    def failed(self) -> bool:
        """A wrong or malformed answer: the claim is refuted."""
        return self.outcome in ("wrong", "malformed")
