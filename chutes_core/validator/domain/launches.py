"""One launch of an instance: its states, the transition table, and the reasons of its end.

`requested -> listening -> challenged -> verified -> starting -> active -> draining -> gone`;
every state may go to gone, with a reason that miner and developer can read. A launch of the system
chute (wire/system.py) attests GPUs and goes from verified to gone(attested). Invariant: an instance
serves calls only in `active`, and it reaches `active` only through `verified`.
"""

from dataclasses import dataclass
from enum import Enum

from chutes_core.base.errors import Conflict
from chutes_core.wire.system import is_admission


class LaunchState(str, Enum):
    """States in order of a launch's life."""

    REQUESTED = "requested"
    LISTENING = "listening"
    CHALLENGED = "challenged"
    VERIFIED = "verified"
    STARTING = "starting"
    ACTIVE = "active"
    DRAINING = "draining"
    GONE = "gone"


_NEXT: dict[LaunchState, frozenset[LaunchState]] = {
    LaunchState.REQUESTED: frozenset({LaunchState.LISTENING, LaunchState.GONE}),
    LaunchState.LISTENING: frozenset({LaunchState.CHALLENGED, LaunchState.GONE}),
    LaunchState.CHALLENGED: frozenset({LaunchState.VERIFIED, LaunchState.GONE}),
    LaunchState.VERIFIED: frozenset({LaunchState.STARTING, LaunchState.GONE}),
    LaunchState.STARTING: frozenset({LaunchState.ACTIVE, LaunchState.GONE}),
    LaunchState.ACTIVE: frozenset({LaunchState.DRAINING, LaunchState.GONE}),
    LaunchState.DRAINING: frozenset({LaunchState.GONE}),
    LaunchState.GONE: frozenset(),
}

OPEN_STATES = tuple(state for state in LaunchState if state is not LaunchState.GONE)


class Reason(str, Enum):
    """Why a launch ended, each with a sentence in REASON_TEXT for the miner's operator."""

    NONE = ""
    ATTESTED = "attested"
    LISTEN_DEADLINE = "listen_deadline"
    UNREACHABLE = "unreachable"
    PROTOCOL = "protocol"
    PROOF_WRONG = "proof_wrong"
    PROOF_LATE = "proof_late"
    PROOF_MALFORMED = "proof_malformed"
    CLAIMS_DISAGREE = "claims_disagree"
    TEST_PROOF_REFUSED = "test_proof_refused"
    ROUND_TRIP_TOO_LONG = "round_trip_too_long"
    START_FAILED = "start_failed"
    START_DEADLINE = "start_deadline"
    PROBE_FAILED = "probe_failed"
    MINER_ENDED = "miner_ended"
    LEASE_LAPSED = "lease_lapsed"
    LEASE_CONFLICT = "lease_conflict"
    DEREGISTERED = "deregistered"
    CHUTE_DELETED = "chute_deleted"
    NOT_DEVELOPER = "not_developer"
    SUPERSEDED = "superseded"
    SCALED_DOWN = "scaled_down"
    JOB_ENDED = "job_ended"
    VALIDATOR_RESTARTED = "validator_restarted"


REASON_TEXT: dict[Reason, str] = {
    Reason.NONE: "",
    Reason.ATTESTED: "every GPU passed; this node attestation is over",
    Reason.LISTEN_DEADLINE: "the instance did not listen in time; look at the miner's build log",
    Reason.UNREACHABLE: "the relay did not answer; check that its port is open from outside",
    Reason.PROTOCOL: "the instance broke the protocol; update the miner's software",
    Reason.PROOF_WRONG: "a graval answer was wrong; this counts against the GPU",
    Reason.PROOF_LATE: "a graval answer came after its deadline; is the GPU busy or throttled?",
    Reason.PROOF_MALFORMED: "a graval answer could not be read; update the miner's software",
    Reason.CLAIMS_DISAGREE: "the device differs from what the inventory claims for it",
    Reason.TEST_PROOF_REFUSED: "test proofs, stand-in GPUs and the process runtime need a devnet",
    Reason.ROUND_TRIP_TOO_LONG: "the round trip is too long to time this GPU; move closer",
    Reason.START_FAILED: "the chute's code or a start-up hook failed; see the detail",
    Reason.START_DEADLINE: "the chute's start-up hooks did not finish in time",
    Reason.PROBE_FAILED: "the started instance did not answer a probe",
    Reason.MINER_ENDED: "the miner reported that the instance has ended",
    Reason.LEASE_LAPSED: "the GPU's lease to this validator ran out",
    Reason.LEASE_CONFLICT: "the GPU is leased to two validators at once",
    Reason.DEREGISTERED: "the miner's hotkey is no longer registered on the subnet",
    Reason.CHUTE_DELETED: "the developer deleted the chute",
    Reason.NOT_DEVELOPER: "the chute's owner is no developer any more, and its notice is over",
    Reason.SUPERSEDED: "a newer version of the chute took over",
    Reason.SCALED_DOWN: "the chute needs fewer instances",
    Reason.JOB_ENDED: "the job that this instance was for has ended",
    Reason.VALIDATOR_RESTARTED: "the validator restarted before the launch was active; ask again",
}


FAILED = frozenset(
    {
        Reason.PROOF_WRONG,
        Reason.PROOF_MALFORMED,
        Reason.CLAIMS_DISAGREE,
        Reason.TEST_PROOF_REFUSED,
    }
)
"""Verdicts that stand against a GPU; every other refusal (late, unreachable…) is inconclusive."""


@dataclass(frozen=True)
class ClaimedGpu:
    """A GPU as the miner claims it for a launch; an ``idle`` one is challenged, and no more."""

    uuid: str
    index: int
    gpu_class: str
    stand_in: bool
    idle: bool = False


@dataclass(frozen=True)
class Launch:
    """The record of one launch; secrets are stored sealed (wire/sealing) beside it, not in it.

    ``gpu_uuids`` serve the chute; ``challenged`` are those and the idle ones that prove with them.
    ``gpu_class`` is what the GPUs count as, which for an uncalibrated class is a lesser one than
    they claim.
    """

    launch_id: str
    chute_id: str
    version: str
    image_id: str
    miner_hotkey: str
    miner_coldkey: str
    registered_at_block: int
    node_id: str
    gpu_uuids: tuple[str, ...]
    gpu_class: str
    relay_host: str
    relay_port: int
    profile: str
    stand_in: bool
    requested_at_s: int
    deadline_s: int
    state: LaunchState = LaunchState.REQUESTED
    reason: Reason = Reason.NONE
    detail: str = ""
    instance_public_key: str = ""
    proof_id: str = ""
    active_at_s: int | None = None
    gone_at_s: int | None = None
    lease_until_s: int = 0
    challenged: tuple[ClaimedGpu, ...] = ()

    @property
    def admission(self) -> bool:
        """Tell whether this launch attests GPUs and serves nothing."""
        return is_admission(self.chute_id)


def check_transition(current: LaunchState, wanted: LaunchState) -> None:
    """Check that the table has this step.

    Raises:
        Conflict: ``bad_transition``.
    """
    if wanted not in _NEXT[current]:
        raise Conflict("bad_transition", f"a launch cannot go from {current} to {wanted}")
