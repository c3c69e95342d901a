"""The validator's whole control plane on a real port, over a store and a chain of its own.

Nothing but the chain is replaced. A signing layer in front proves each request as its path asks
for: the schema's cases cannot sign themselves.
"""

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import uvicorn
from bittensor_core import Keypair

from chutes_core.base import ids
from chutes_core.base.clock import ManualClock
from chutes_core.chain.metagraph import Metagraph, Neuron
from chutes_core.chain.subnet import Subnet
from chutes_core.validator.app import build
from chutes_core.validator.domain.extras import Logo
from chutes_core.validator.domain.jobs import JobRun, JobState, StoredFile
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.network import Picture
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.wiring.ground import Ground
from chutes_core.wire.peers import SignedClient
from chutes_core.wire.signing import sign_request, sign_user

ALICE, BOB, MINER = (Keypair.create_from_uri(f"//{name}") for name in ("Alice", "Bob", "Miner"))
HOTKEY = Keypair.create_from_uri("//Validator")
PURPOSES = {
    "images": "images",
    "chutes": "chutes",
    "api_keys": "api_keys",
    "secrets": "secrets",
    "instances": "logs",
    "logos": "logos",
    "jobs": "jobs",
    "invocations": "invocations",
}


class StillChain:
    """A devnet that stands still: two neurons, no fees, no owner of any hotkey."""

    is_devnet = True
    genesis_hash = "0x" + "7" * 64
    netuid = 2

    def use_outbox(self, outbox, *, archive_url=None):
        del outbox, archive_url

    def owner_of(self, hotkey_ss58):
        del hotkey_ss58

    def transfer_fee_rao(self, sender, destination, rao):
        del sender, destination, rao
        return 100_000

    def picture(self):
        neurons = tuple(
            Neuron(uid, key.ss58_address, ALICE.ss58_address, 10**12, uid == 0, 1, None, None, 0, 0)
            for uid, key in enumerate((HOTKEY, MINER))
        )
        subnet = Subnet(
            netuid=2,
            block=5,
            tempo=10,
            weights_rate_limit=1,
            min_allowed_weights=1,
            max_weight_limit=65535,
            commit_reveal=False,
            weights_version=0,
            owner_hotkey=ALICE.ss58_address,
            last_epoch_block=0,
            next_epoch_block=None,
            block_ms=250,
            immunity_period=1,
            max_uids=256,
            neuron_count=2,
            registration_allowed=True,
            burn_rao=0,
        )
        return Picture(Metagraph(5, neurons), subnet, {})


class Proving:
    """Puts the proof that a path asks for on each request that carries none."""

    def __init__(self, app, clock):
        self._app = app
        self._clock = clock
        self._strangers = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        names = {name for name, _ in scope["headers"]}
        if names & {b"authorization", b"x-chutes-signature"}:
            self._clock.advance(1)
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        given = False

        async def replay():
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        self._clock.advance(1)
        proof = self._proof(scope, bytes(body))
        own = {name.lower().encode(): value.encode() for name, value in proof.items()}
        kept = [pair for pair in scope["headers"] if pair[0] not in own]
        await self._app({**scope, "headers": [*kept, *own.items()]}, replay, send)

    def _proof(self, scope, body):
        path = scope["path"]
        if path.startswith("/miner/"):
            target = scope["raw_path"].decode()
            query = scope.get("query_string", b"").decode()
            return sign_request(
                MINER,
                body=body,
                method=scope["method"],
                path=f"{target}?{query}" if query else target,
                receiver_ss58=HOTKEY.ss58_address,
                nonce_ns=self._clock.now_us() * 1_000,
            )
        who, purpose = ALICE, PURPOSES.get(path.split("/")[1], "me")
        if path in ("/users/register", "/users/recover"):
            self._strangers += 1
            who, purpose = Keypair.create_from_uri(f"//Stranger/{self._strangers}"), "register"
        return sign_user(who, body=body or None, purpose=purpose, nonce_s=self._clock.now_s())


@contextmanager
def served(folder) -> Iterator[SimpleNamespace]:
    """Run it; gives its URL, the ids of what it holds, its store and its clock."""
    clock, chain = ManualClock(), StillChain()
    settings = ValidatorSettings(
        data_dir=folder,
        netuid=2,
        runtime="process",
        profile="test",
        payment_treasury=Keypair.create_from_uri("//Pay").ss58_address,
        deposit_treasury=Keypair.create_from_uri("//Deposit").ss58_address,
    )
    keys = SimpleNamespace(hotkey=HOTKEY, hotkey_ss58=HOTKEY.ss58_address)
    ground = Ground(settings, keys, chain, SignedClient(HOTKEY), clock, "http://127.0.0.1:1")
    validator = build(ground)
    validator.network._picture = chain.picture()
    server = uvicorn.Server(
        uvicorn.Config(
            Proving(validator.gateway.front, clock),
            host="127.0.0.1",
            port=0,
            log_level="critical",
            lifespan="off",
        )
    )
    ready = threading.Event()
    begin = server.startup

    async def startup(sockets=None):
        await begin(sockets)
        ready.set()

    server.startup = startup
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert ready.wait(60)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        known = _fill(url, validator.store, clock)
        yield SimpleNamespace(url=url, known=known, store=validator.store, clock=clock)
    finally:
        server.should_exit = True
        thread.join(60)
        validator.attestor.close()
        validator.watcher.close()
        validator.journals.close()
        validator.store.close()


def _fill(url, store, clock):
    """Put one of everything into the store; return path parameters by a path's first part."""
    with httpx.Client(base_url=url, trust_env=False) as http:
        for key, name in ((ALICE, "alice"), (BOB, "bob")):
            body = json.dumps({"username": name, "coldkey": key.ss58_address}).encode()
            proof = sign_user(key, body=body, purpose="register", nonce_s=clock.now_s())
            headers = {**proof, "Content-Type": "application/json"}
            done = http.post("/users/register", content=body, headers=headers)
            assert done.status_code == 200, done.text
        context = io.BytesIO()
        with zipfile.ZipFile(context, "w") as archive:
            archive.writestr("app.py", "chute = 1")
        fields = {"username": "alice", "name": "app", "tag": "1", "dockerfile": "FROM a/b:1\n"}
        done = http.post("/images/", data=fields, files={"build_context": context.getvalue()})
        assert done.status_code == 202, done.text
        built = http.get("/images/alice/app:1/logs", timeout=60)  # ends once it is built
        assert built.status_code == 200, built.text
        cord = {"function": "say", "path": "/say", "public_api_path": "/say"}
        chute = {"name": "app", "image": "app:1", "filename": "app.py", "ref_str": "app:chute"}
        done = http.post("/chutes/", json=chute | {"code": "chute = 1", "cords": [cord]})
        assert done.status_code == 200, done.text
        key = http.post("/api_keys/", json={"name": "k", "admin": True}).json()
        done = http.put("/aliases/both", json={"chutes": ["app"]})
        assert done.status_code == 200, done.text
        secret = http.post("/secrets/", json={"purpose": "app", "key": "A", "value": "b"}).json()
    owner = store.accounts.by_username("alice")
    blob = store.blobs.put([b"\x89PNG\r\n\x1a\n"], limit_bytes=100)
    logo = Logo(ids.new_id(), owner.user_id, blob.sha256, "image/png", clock.now_s())
    store.logos.insert(logo)
    image_id = ids.image_id("alice", "app", "1")
    job = _ended_job(store, owner.user_id)
    return {
        "api_keys": {"key_id": key["api_key_id"]},
        "secrets": {"secret_id": secret["secret_id"]},
        "logos": {"logo_id": logo.logo_id},
        "images": {"reference": "alice/app:1"},
        "chutes": {"reference": "app"},
        "aliases": {"name": "both"},
        "users": {"hotkey": BOB.ss58_address, "refund_id": ids.new_id()},
        "launches": {"launch_id": ids.new_id()},
        "instances": {"instance_id": ids.new_id()},
        "invocations": {"invocation_id": ids.new_id()},
        "miner": {"image_id": image_id, "launch_id": ids.new_id()},
        "evidence": {"epoch": 1},
        "jobs": {"job_id": job.job_id, "name": job.files[0].name, "path": "x"},
    }


def _ended_job(store, user_id):
    blob = store.job_files.put([b"left"], limit_bytes=100)
    job = JobRun(
        job_id=ids.new_id(),
        user_id=user_id,
        key_id="",
        chute_id=ids.chute_id("alice", "app"),
        name="fit",
        arguments="{}",
        limit_s=60,
        upload=True,
        rate=Rate("r", 1, 1),
        created_at_s=1,
        state=JobState.COMPLETE,
        result='{"a": 1}',
        files=(StoredFile("out/a.txt", blob.size_bytes, blob.sha256),),
    )
    store.jobs.insert(job)
    return job
