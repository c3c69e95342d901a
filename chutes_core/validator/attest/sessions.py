"""One attestation from hello to rekey, on a blocking socket in a process of its own.

Path: attest/attestor -> here -> relay -> runner/session -> prover -> back -> verdicts. Everything
is built before leg 1 is sent; times are taken at this socket, with no event loop in between. An
instance that has been proven before is challenged again under its keys, which it keeps; in a round
(attest/rounds) several sessions send their first leg at the same instant.
Invariant: leg 2 goes out only after every GPU has answered leg 1 (the barrier), and root 1 exists
only where every GPU passed and the instance confirmed the rekeying.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from pydantic import ValidationError

from chutes_core.base.errors import ChutesError, ProtocolError, TimedOut, Unavailable
from chutes_core.validator.attest.challenges import (
    Objection,
    Prepared,
    check_devices,
    prepare,
    read_warms,
    usable,
)
from chutes_core.validator.attest.verdicts import LegResult, attestation, judge, refused
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan
from chutes_core.wire import PROTOCOL_MIN
from chutes_core.wire.blocking import BlockingConnection, open_blocking
from chutes_core.wire.frames import Frame, FrameKind, pack_leg, unpack_leg
from chutes_core.wire.launch import FrameError, Warm
from chutes_core.wire.sealing import PROVEN, UNPROVEN, KeyPair, agree_root, rekey_root
from graval.messages import Warm as ProverWarm
from graval.verifier import Challenge, session_key_material

PINGS = 5
CONNECT_TIMEOUT_S = 5.0
PING_TIMEOUT_S = 5.0
REKEY_TIMEOUT_S = 60.0
ANSWER_BYTES = 32
LOOK_UP_S = 0.2

Monotonic = Callable[[], int]
"""A monotonic clock in microseconds."""
Start = Callable[[], None]
"""Returns when the first leg may go out."""


def system_monotonic_us() -> int:
    """Return the process's monotonic clock in microseconds."""
    return time.monotonic_ns() // 1_000


def at_once() -> None:
    """Start without waiting for anyone."""


def run_session(
    plan: AttestPlan, *, now_us: Monotonic = system_monotonic_us, start: Start = at_once
) -> Attestation:
    """Attest one instance; every failure is an outcome with a reason, never an exception."""
    try:
        root = _root_of(plan)
        with open_blocking(
            plan.host,
            plan.port,
            root=root,
            ticket=plan.ticket,
            launch_id=plan.launch_id,
            generation=UNPROVEN if plan.root is None else PROVEN,
            timeout_s=CONNECT_TIMEOUT_S,
        ) as connection:
            return _Session(plan, connection, root, now_us, start).run()
    except Objection as objection:
        return refused(plan, objection.reason, objection.detail)
    except ChutesError as error:
        return refused(plan, _reason_of(error), str(error))


def _root_of(plan: AttestPlan) -> bytes:
    if plan.root is not None:
        return plan.root
    keys = KeyPair.from_private(plan.validator_private_key)
    return agree_root(
        keys, plan.instance_public_key, launch_id=plan.launch_id, validator_public=keys.public
    )


class _Session:
    def __init__(
        self,
        plan: AttestPlan,
        connection: BlockingConnection,
        root: bytes,
        now_us: Monotonic,
        start: Start,
    ) -> None:
        self._plan = plan
        self._connection = connection
        self._root = root
        self._now_us = now_us
        self._start = start

    def run(self) -> Attestation:
        devices, warms = self._hello()
        check_devices(self._plan, warms)
        rtt_us = self._round_trip_us()
        prepared = usable(self._plan.prebuilt, devices, rtt_us)
        if prepared is None:
            prepared = prepare(self._plan, warms, rtt_us)
        self._start()
        try:
            legs = self._passes(prepared)
        except Unavailable as error:
            # Hanging up on a challenge is no way around its deadline.
            lost = "the connection was lost after the challenge was sent"
            raise Objection(Reason.PROOF_LATE, lost) from error
        proof = judge(self._plan, prepared, warms, legs, rtt_us=rtt_us)
        if self._plan.root is not None:
            self._finish()
            return replace(attestation(proof), devices=devices)
        if not proof.accepted:
            return attestation(proof)
        first, second = legs[0]
        answers = [(first.answers[i], second.answers[i]) for i in range(len(warms))]
        root = self._rekey(session_key_material(answers))
        return replace(attestation(proof, root=root), devices=devices)

    def _passes(self, prepared: Prepared) -> list[tuple[LegResult, LegResult]]:
        """Run every pass, up to the first in which an answer is missing."""
        done = []
        due1_us = max(work.due.leg1_us for work in prepared.works)
        due2_us = max(work.due.leg2_us for work in prepared.works)
        for challenges in prepared.passes:
            first = self._leg(1, challenges, due1_us)
            # The barrier: every memory must be full at once, so nobody scans before all filled.
            full = len(first.answers) == len(challenges)
            second = self._leg(2, challenges, due2_us) if full else LegResult()
            done.append((first, second))
            if len(second.answers) < len(challenges):
                break
        return done

    def _hello(self) -> tuple[tuple[str, ...], tuple[ProverWarm, ...]]:
        self._connection.send(FrameKind.HELLO, b"{}")
        frame = self._receive(FrameKind.WARM, self._plan.warm_timeout_s)
        try:
            warm = Warm.model_validate_json(frame.payload)
        except ValidationError as error:
            raise Objection(Reason.PROTOCOL, "WARM is not what version 1 says") from error
        if bytes.fromhex(warm.instance_public_key) != self._plan.instance_public_key:
            raise Objection(Reason.PROTOCOL, "WARM names another instance key")
        if warm.handshake.protocol_max < PROTOCOL_MIN:
            raise Objection(Reason.PROTOCOL, "the image's runner is too old: build the image again")
        return warm.devices, read_warms(warm.devices)

    def _round_trip_us(self) -> int:
        """Return the least of five round trips on this connection, in microseconds."""
        least = None
        for _ in range(PINGS):
            payload = secrets.token_bytes(8)
            sent_us = self._now_us()
            self._connection.send(FrameKind.PING, payload)
            frame = self._receive(FrameKind.PONG, PING_TIMEOUT_S)
            elapsed_us = self._now_us() - sent_us
            if frame.payload != payload:
                raise Objection(Reason.PROTOCOL, "PONG echoes something else")
            least = elapsed_us if least is None else min(least, elapsed_us)
        assert least is not None
        return least

    def _leg(self, leg: int, challenges: tuple[Challenge, ...], due_us: int) -> LegResult:
        """Send one leg to every GPU and gather answers until all are in or the deadline passed."""
        sent_us = self._now_us()
        for index, challenge in enumerate(challenges):
            message = challenge.leg1 if leg == 1 else challenge.leg2
            self._connection.send(FrameKind.LEG, pack_leg(index, leg, message.to_bytes()))
        result = LegResult()
        while len(result.answers) < len(challenges):
            left_us = sent_us + due_us - self._now_us()
            if left_us <= 0:
                break
            try:
                frame = self._receive(FrameKind.ANSWER, min(left_us / 1_000_000, LOOK_UP_S))
            except TimedOut:
                continue  # look at the clock again
            self._take(frame, leg, result, len(challenges), sent_us)
        return result

    def _take(self, frame: Frame, leg: int, result: LegResult, count: int, sent_us: int) -> None:
        elapsed_us = self._now_us() - sent_us
        index, answered_leg, answer = unpack_leg(frame.payload)
        fits = answered_leg == leg and index < count and index not in result.answers
        if not fits or len(answer) != ANSWER_BYTES:
            raise Objection(Reason.PROOF_MALFORMED, f"an answer to leg {leg} does not fit it")
        result.answers[index] = answer
        result.times_us[index] = elapsed_us

    def _rekey(self, answers: bytes) -> bytes:
        self._connection.send(FrameKind.REKEY)
        self._receive(FrameKind.REKEYED, REKEY_TIMEOUT_S)
        return rekey_root(self._root, answers, launch_id=self._plan.launch_id)

    def _finish(self) -> None:
        """Have the provers end, so that their memory is free before the next call comes."""
        self._connection.send(FrameKind.END)
        deadline_us = self._now_us() + REKEY_TIMEOUT_S * 1_000_000
        while self._now_us() < deadline_us:
            frame = self._connection.receive(REKEY_TIMEOUT_S)
            if frame.kind is FrameKind.OK:
                return
            if frame.kind is not FrameKind.ANSWER:  # a late answer changes nothing any more
                raise Objection(Reason.PROTOCOL, f"{frame.kind.name} came in place of OK")

    def _receive(self, kind: FrameKind, timeout_s: float) -> Frame:
        frame = self._connection.receive(timeout_s)
        if frame.kind is FrameKind.ERROR:
            raise Objection(Reason.PROTOCOL, _error_text(frame))
        if frame.kind is not kind:
            raise Objection(Reason.PROTOCOL, f"{frame.kind.name} came in place of {kind.name}")
        return frame


def _error_text(frame: Frame) -> str:
    try:
        error = FrameError.model_validate_json(frame.payload)
    except ValidationError:
        return "the instance sent an unreadable error"
    return f"{error.code}: {error.message}"


def _reason_of(error: ChutesError) -> Reason:
    if isinstance(error, ProtocolError):
        return Reason.PROTOCOL
    return Reason.UNREACHABLE if isinstance(error, Unavailable) else Reason.PROTOCOL
