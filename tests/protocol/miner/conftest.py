"""A validator's signed HTTP side, image bundles and tiny runners, on real sockets."""

import asyncio
import hashlib
import io
import json
import secrets
import socket
import uuid
import zipfile
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from bittensor_core import Keypair
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError, Conflict, NotFound
from chutes_core.miner.inventory import Node, stand_ins
from chutes_core.miner.server import HttpServer
from chutes_core.miner.settings import parse_declared
from chutes_core.validator.launches.dialback import DialBacks
from chutes_core.wire.control import (
    DialBack,
    DialBackRequest,
    Handshake,
    ImageRef,
    LaunchEvent,
    LaunchGrant,
    LaunchList,
    LaunchRequest,
    LaunchStatus,
    LeaseList,
    WantedChute,
    WantedList,
)
from chutes_core.wire.discovery import WellKnown
from chutes_core.wire.neuron_http import CALLER, SignedASGI
from chutes_core.wire.sealing import KEY_BYTES, KeyPair

VALIDATOR = Keypair.create_from_uri("//Validator")
MINER = Keypair.create_from_uri("//Miner")

# Stands in for `python -m chutes_core.runner`: listens, writes the ready line, echoes in capitals.
RUNNER = """
import json, os, socket, sys, threading
server = socket.create_server(("127.0.0.1", int(os.environ["CHUTES_RUNNER_PORT"])))
print("tiny runner of", os.environ["CHUTES_RUNNER_LAUNCH_ID"])
print("environment:", sorted(os.environ))
ready = os.environ["CHUTES_RUNNER_READY_FILE"]
with open(ready + ".tmp", "w") as file:
    json.dump({"port": server.getsockname()[1], "public_key": "ab" * 32}, file)
os.replace(ready + ".tmp", ready)

def serve(link):
    with link:
        link.recv(85, socket.MSG_WAITALL)
        while data := link.recv(65536):
            if data == b"exit":
                os._exit(7)
            link.sendall(data.upper())

while True:
    link, _ = server.accept()
    threading.Thread(target=serve, args=(link,), daemon=True).start()
"""


def bundle_of(dockerfile, **files):
    """The zip of an image, as the validator serves it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("Dockerfile", dockerfile)
        for name, text in files.items():
            archive.writestr(f"context/{name}", text)
    return out.getvalue()


class MemoryNonces:
    def __init__(self):
        self.seen = set()

    def check_and_store(self, hotkey_ss58, nonce, expires_s):
        fresh = (hotkey_ss58, nonce) not in self.seen
        self.seen.add((hotkey_ss58, nonce))
        return fresh


@dataclass
class FakeValidator:
    """What the contract says of a validator's /miner routes, and nothing more."""

    genesis_hash: str = "0xgenesis"
    netuid: int = 3
    key: Keypair = VALIDATOR
    bundle: bytes = field(default_factory=lambda: bundle_of("FROM nothing\n"))
    url: str = ""
    wanted: list = field(default_factory=list)
    asked: int = 0  # how often for what is wanted
    statuses: dict = field(default_factory=dict)
    grants: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    events: list = field(default_factory=list)
    leases: list = field(default_factory=list)
    refuse: ChutesError | None = None
    listen_deadline_s: int = 90
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def hotkey(self):
        return self.key.ss58_address

    def want(self, number=1, **changes):
        values = {
            "chute_id": str(uuid.UUID(int=number)),
            "version": str(uuid.UUID(int=99)),
            "image_id": str(uuid.UUID(int=77)),
            "gpu_count": 1,
            "gpu_classes": ("h100_sxm",),
            "rao_per_hour": 1,
            "missing": 1,
        }
        chute = WantedChute(**{**values, **changes})
        self.wanted.append(chute)
        return chute

    async def until(self, condition, timeout_s=90):
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(condition), timeout_s)

    def events_of(self, kind):
        return [(launch_id, event) for launch_id, event in self.events if event.event == kind]

    def grant(self, request):
        if self.refuse is not None:
            raise self.refuse
        chute = next((c for c in self.wanted if c.chute_id == request.chute_id), None)
        if chute is None:
            raise Conflict("not_wanted", "no instance is missing")
        self.wanted.remove(chute)
        if chute.missing > 1:
            self.wanted.append(chute.model_copy(update={"missing": chute.missing - 1}))
        launch_id = str(uuid.uuid4())
        grant = LaunchGrant(
            launch_id=launch_id,
            validator_public_key=KeyPair.generate().public.hex(),
            ticket=secrets.token_bytes(KEY_BYTES).hex(),
            chute_id=chute.chute_id,
            version=chute.version,
            chute_name="bob/demo",
            gpu_uuids=tuple(gpu.uuid for gpu in request.gpus),
            idle_gpu_uuids=tuple(gpu.uuid for gpu in getattr(request, "idle_gpus", ())),
            image=ImageRef(
                image_id=chute.image_id,
                name="bob/app:1",
                kind=request.runtime,
                path=f"/miner/images/{chute.image_id}/bundle",
                sha256=hashlib.sha256(self.bundle).hexdigest(),
                size_bytes=len(self.bundle),
            ),
            profile="test",
            listen_deadline_s=self.listen_deadline_s,
            lease_renewal_s=60,
        )
        self.grants[launch_id] = grant
        self.set_state(launch_id, "requested")
        return grant

    def set_state(self, launch_id, state, reason=""):
        grant = self.grants[launch_id]
        self.statuses[launch_id] = LaunchStatus(
            launch_id=launch_id,
            chute_id=grant.chute_id,
            gpu_uuids=grant.gpu_uuids,
            state=state,
            reason=reason,
        )

    async def take_event(self, launch_id, event):
        if launch_id not in self.statuses:
            raise NotFound("no_such_launch", "you have no such launch")
        async with self.changed:
            self.events.append((launch_id, event))
            state = "listening" if event.event == "listening" else "gone"
            status = self.statuses[launch_id]
            self.statuses[launch_id] = status.model_copy(update={"state": state})
            self.changed.notify_all()
        return self.statuses[launch_id]

    def app(self):
        app = FastAPI()

        @app.exception_handler(ChutesError)
        async def failed(request: Request, error: ChutesError) -> Response:
            status = 404 if isinstance(error, NotFound) else 409
            body = {"detail": error.message, "code": error.code, "hint": error.hint}
            return JSONResponse(body, status)

        @app.get("/.well-known/chutes")
        async def well_known(nonce: str) -> WellKnown:
            return WellKnown(
                handshake=Handshake(version="1"),
                hotkey=self.hotkey,
                url=self.url,
                netuid=self.netuid,
                genesis_hash=self.genesis_hash,
                nonce=nonce,
            ).signed(self.key)

        @app.get("/leases")
        async def leases() -> LeaseList:
            return LeaseList(leases=tuple(self.leases))

        @app.get("/miner/wanted")
        async def wanted() -> WantedList:
            self.asked += 1
            async with self.changed:
                self.changed.notify_all()
            return WantedList(block=1, lease_blocks=300, wanted=tuple(self.wanted))

        @app.post("/miner/reachable")
        async def reachable(request: Request, body: DialBackRequest) -> DialBack:
            network = SimpleNamespace(miner=lambda hotkey: None, may_dial=lambda ip: True)
            dial_backs = DialBacks(network, SystemClock())
            caller = request.scope[CALLER].hotkey_ss58
            return await dial_backs.dial(caller, request.client.host, body)

        @app.get("/miner/launches")
        async def launches() -> LaunchList:
            return LaunchList(launches=tuple(self.statuses.values()))

        @app.post("/miner/launches", status_code=201)
        async def request_launch(request: Request, body: LaunchRequest) -> LaunchGrant:
            self.requests.append((request.scope[CALLER].hotkey_ss58, body))
            return self.grant(body)

        @app.post("/miner/launches/{launch_id}/events")
        async def event(launch_id: str, body: LaunchEvent) -> LaunchStatus:
            return await self.take_event(launch_id, body)

        @app.get("/miner/images/{image_id}/bundle")
        async def bundle(image_id: str) -> Response:
            return Response(self.bundle, media_type="application/zip")

        async def anyone(hotkey: str) -> None:
            return None

        return SignedASGI(
            app,
            keypair=self.key,
            nonces=MemoryNonces(),
            authorise=anyone,
            clock=SystemClock(),
            prefixes=("/miner/",),
        )


@pytest.fixture
async def serve_validator():
    """Start fake validators on real sockets; they end with the test."""
    servers = []

    async def start(validator):
        listening = socket.create_server(("127.0.0.1", 0))
        validator.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = HttpServer(validator.app(), listening)
        await server.start()
        servers.append(server)
        return validator

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
def runner_command():
    """Arguments for the image's interpreter, in place of `-m chutes_core.runner`."""
    return ("-c", RUNNER)


@pytest.fixture
def make_validator():
    return FakeValidator


@pytest.fixture
def make_bundle():
    return bundle_of


@pytest.fixture
def keys():
    return {"validator": VALIDATOR, "miner": MINER}


@pytest.fixture
def make_node():
    def make(relay_port, declared="h100_sxm:2"):
        return Node(
            hotkey_ss58=MINER.ss58_address,
            node_id="node-1",
            runtime="process",
            relay_port=relay_port,
            gpus=stand_ins(MINER.ss58_address, parse_declared(declared)),
            hourly_cost_usd_micros=5,
            handshake=Handshake(version="1"),
        )

    return make


@pytest.fixture
def read_json():
    return lambda path: json.loads(path.read_text())
