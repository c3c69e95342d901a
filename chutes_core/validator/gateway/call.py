"""One admitted call while it runs: what is sent, and what metering will want to know.

Invariant: `dispatched_us` is set only while an instance holds the call, so that time spent on
instances that failed is never charged.
"""

from collections.abc import Collection

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError
from chutes_core.base.units import MICROSECONDS_PER_HOUR
from chutes_core.validator.gateway.admission import Admitted
from chutes_core.validator.gateway.buckets import Standing
from chutes_core.validator.gateway.holds import Hold
from chutes_core.validator.gateway.upgrades import Upgrade
from chutes_core.validator.gateway.usage import Tail


class Call:
    """Mutable on purpose: it is the running call. All times in microseconds.

    ``head`` is the payload of its CALL frame; ``tried`` names the launches that gave no answer;
    ``delivered`` tells that an instance may have seen it;
    ``arrived_us`` is when its caller began to wait for an instance, ``first_byte_us`` how long the
    answering instance took to the head of its answer; ``tail`` is kept where tokens are counted;
    ``upgrade`` is set where a websocket is asked for; ``streamed_in`` counts its bytes that an
    instance was sent.
    """

    __slots__ = (
        "admitted",
        "arrived_us",
        "attempts",
        "body",
        "caller_left",
        "delivered",
        "dispatched_us",
        "faults",
        "first_byte_us",
        "head",
        "hold",
        "invocation_id",
        "last_error",
        "launch_id",
        "standing",
        "started_at_us",
        "status",
        "streamed_in",
        "tail",
        "tried",
        "upgrade",
    )

    def __init__(
        self, invocation_id: str, admitted: Admitted, head: bytes, body: bytes, hold: Hold
    ) -> None:
        self.invocation_id = invocation_id
        self.admitted = admitted
        self.head = head
        self.body = body
        self.hold = hold
        self.tried: Collection[str] = ()
        self.last_error: ChutesError | None = None
        self.caller_left = False
        self.delivered = False
        self.attempts = 0
        self.faults = 0
        self.launch_id = ""
        self.started_at_us = 0
        self.dispatched_us: int | None = None
        self.status = 0
        self.standing: Standing | None = None
        self.arrived_us = 0
        self.first_byte_us = 0
        self.tail: Tail | None = None
        self.upgrade: Upgrade | None = None
        self.streamed_in = 0

    @property
    def bytes_in(self) -> int:
        """Return how many bytes of its caller's the call has brought to its instance."""
        return len(self.body) + self.streamed_in

    @property
    def chute_id(self) -> str:
        """Return the chute that is called."""
        return self.admitted.chute.chute_id

    @property
    def choices(self) -> tuple[Admitted, ...]:
        """Return what may answer, the next one first: one chute, unless an alias was called."""
        return (self.admitted,)

    @property
    def fails_over(self) -> bool:
        """Tell whether another chute may answer where one lets its time pass."""
        return False

    @property
    def answered_by(self) -> str:
        """Return the slug of the chute that answers, where the caller named an alias."""
        return ""

    @property
    def free(self) -> bool:
        """Tell whether the call costs its payer nothing, whatever it comes to."""
        return self.admitted.payer.free and not self.hold.paid

    def aim(self, admitted: Admitted) -> None:
        """Ask this one of the choices."""

    def turned_down(self) -> None:
        """Note that the chute which was asked gave no answer."""

    def dispatch(self, launch_id: str, clock: Clock) -> None:
        """Note that the call now goes to this instance."""
        self.launch_id = launch_id
        self.delivered = True
        self.started_at_us = clock.now_us()
        self.dispatched_us = clock.monotonic_us()
        self.arrived_us = self.arrived_us or self.dispatched_us

    def answered(self, status: int, clock: Clock) -> int:
        """Note that the head of an answer came; return how long it took since dispatch."""
        self.status = status
        self.first_byte_us = self.usage_us(clock)
        return self.first_byte_us

    def taken_back(self, *, fault: bool) -> None:
        """Note that the instance gave no answer, by a fault of its own or not."""
        self.dispatched_us = None
        self.faults += fault

    def usage_us(self, clock: Clock) -> int:
        """Return the time since dispatch; 0 while no instance has the call."""
        return 0 if self.dispatched_us is None else clock.monotonic_us() - self.dispatched_us

    def paid_s(self, max_call_s: float) -> float:
        """Return how long the call may run: what its hold pays for, at most ``max_call_s``."""
        rate = self.admitted.chute.rate
        if rate.rao_per_hour <= 0:
            return max_call_s
        paid_us = rate.hold_rao * MICROSECONDS_PER_HOUR // rate.rao_per_hour
        return min(max_call_s, paid_us / 1_000_000)
