"""An instance that speaks the session's protocol in a thread, for tests to bend.

Path: test -> `attest` (a real `run_session` over a real socket) -> `Instance` -> numpy provers.
"""

import contextlib
import socket
import threading
import uuid
from dataclasses import replace
from typing import ClassVar

from chutes_core.base.errors import ProtocolError
from chutes_core.validator.attest.sessions import run_session, system_monotonic_us
from chutes_core.validator.domain.verdicts import AttestPlan, ClaimedGpu
from chutes_core.wire.control import Handshake
from chutes_core.wire.frames import FrameCodec, FrameKind, pack_leg, unpack_leg
from chutes_core.wire.launch import Warm
from chutes_core.wire.sealing import (
    PREAMBLE_BYTES,
    ConnectionKeys,
    KeyPair,
    Preamble,
    agree_root,
    rekey_root,
)
from graval.challenge import Leg1, Leg2
from graval.messages import RowsFor
from graval.messages import Warm as ProverWarm
from graval.params import PROFILES
from graval.prover.backend import Choice, open_backend
from graval.prover.prove import Prover

LAUNCH = str(uuid.UUID(int=11))
TICKET = b"t" * 32


class Instance:
    """An instance in a thread; a test replaces single steps of it by dishonest ones."""

    def __init__(self, validator_public: bytes, gpus=1):
        self.keys = KeyPair.generate()
        self.root = agree_root(
            self.keys, validator_public, launch_id=LAUNCH, validator_public=validator_public
        )
        self.provers = [
            Prover(open_backend("numpy", Choice(gpu=i, declare="h100_sxm"))) for i in range(gpus)
        ]
        self.devices = [prover.warm_up().to_bytes().hex() for prover in self.provers]
        self.answers = {}
        self.order = []
        self.rekeyed = None
        self.server = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self):
        return self.server.getsockname()[1]

    def close(self):
        """Stop serving; a thread that still waits in accept wakes."""
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join(5)

    def answer(self, index, leg, body):
        if leg == 1:
            return self.provers[index].answer_leg1(Leg1.from_bytes(body)).digest
        return self.provers[index].answer_leg2(Leg2.from_bytes(body)).digest

    def frames_for(self, index, leg, digest):
        return [(FrameKind.ANSWER, pack_leg(index, leg, digest))]

    def _serve(self):
        with contextlib.suppress(OSError, ProtocolError):  # the validator hung up, or never came
            self._speak()

    def _speak(self):
        connection, _ = self.server.accept()
        with connection:
            preamble = Preamble.parse(connection.recv(PREAMBLE_BYTES, socket.MSG_WAITALL))
            assert preamble.is_from(TICKET)
            nonce = b"n" * 32
            connection.sendall(nonce)
            codec = FrameCodec.for_instance(
                ConnectionKeys.derive(
                    self.root, validator_nonce=preamble.nonce, instance_nonce=nonce
                )
            )
            while data := connection.recv(65536):
                for frame in codec.feed(data):
                    for kind, payload in self.reply(frame):
                        connection.sendall(codec.seal(kind, payload))

    def reply(self, frame):
        if frame.kind is FrameKind.HELLO:
            return [(FrameKind.WARM, self.warm().model_dump_json().encode())]
        if frame.kind is FrameKind.PING:
            return [(FrameKind.PONG, frame.payload)]
        if frame.kind is FrameKind.LEG:
            index, leg, body = unpack_leg(frame.payload)
            self.order.append((leg, index))
            digest = self.answer(index, leg, body)
            self.answers[(index, leg)] = digest
            return self.frames_for(index, leg, digest)
        assert frame.kind is FrameKind.REKEY
        material = b"".join(
            self.answers[(i, leg)] for i in range(len(self.provers)) for leg in (1, 2)
        )
        self.rekeyed = rekey_root(self.root, material, launch_id=LAUNCH)
        return [(FrameKind.REKEYED, b"")]

    def warm(self):
        return Warm(
            handshake=Handshake(version="test"),
            instance_public_key=self.keys.public.hex(),
            devices=tuple(self.devices),
        )


class Knowing(Instance):
    """An instance of provers that compute nothing: they look the answers up in `digests`.

    `digests` maps challenge ids to both digests; see `known` in conftest.
    """

    digests: ClassVar[dict] = {}

    def __init__(self, validator_public, gpus=1):
        super().__init__(validator_public, gpus=0)
        self.ids = {}
        rows = tuple(
            RowsFor(p.name, p.rows(0) if p.name == "test" else 0) for p in PROFILES.values()
        )
        for gpu in range(gpus):
            info = open_backend("numpy", Choice(gpu, declare="h100_sxm")).device_info()
            self.devices.append(ProverWarm(device=info, rows=rows).to_bytes().hex())
            self.provers.append(None)

    def answer(self, index, leg, body):
        if leg == 1:
            self.ids[index] = Leg1.from_bytes(body).challenge_id
        return self.digests[self.ids[index]][leg - 1]


def attest(kind=Instance, *, gpus=1, claims=None, now_us=system_monotonic_us, **changes):
    """Run one session against an instance of a kind; return the outcome and the instance."""
    plan, instance = started(kind, gpus=gpus)
    claimed = plan.gpus if claims is None else claims
    outcome = run_session(replace(plan, gpus=claimed, **changes), now_us=now_us)
    instance.close()
    return outcome, instance


def started(kind=Instance, *, gpus=1):
    """Start an instance of a kind; return the plan to attest it, and the instance."""
    validator = KeyPair.generate()
    instance = kind(validator.public, gpus)
    instance.thread.start()
    plan = AttestPlan(
        launch_id=LAUNCH,
        validator_hotkey="5Validator",
        miner_hotkey="5Miner",
        node_id="node",
        host="127.0.0.1",
        port=instance.port,
        ticket=TICKET,
        validator_private_key=validator.private,
        instance_public_key=instance.keys.public,
        profile="test",
        gpus=tuple(ClaimedGpu(f"GPU-{i}", i, "h100_sxm", True) for i in range(gpus)),
        devnet=True,
        started_at_s=1_700_000_000,
        warm_timeout_s=60,
    )
    return plan, instance
