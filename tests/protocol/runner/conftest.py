"""A real runner process, driven from the validator's end over real sockets."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chutes_core.wire.blocking import BlockingConnection, open_blocking
from chutes_core.wire.connection import SealedConnection, open_connection
from chutes_core.wire.frames import Frame, FrameKind, pack_leg, unpack_leg
from chutes_core.wire.launch import StartOrder, Warm
from chutes_core.wire.sealing import PROVEN, UNPROVEN, KeyPair, agree_root, rekey_root
from graval import verifier
from graval.challenge import SeedContext
from graval.messages import Warm as ProverWarm
from graval.profile import PROFILES

TICKET = b"t" * 32
PROFILE = PROFILES["test"]
WAIT_S = 90.0

CHUTE = """
import asyncio
import multiprocessing
import os
import threading
import time
from pathlib import Path

from chutes.chute import Chute, NodeSelector

chute = Chute(username="bob", name="demo", image="bob/app:1", concurrency=2)
release = threading.Event()
seen = []


@chute.on_startup()
async def begin(self):
    print("hook says hello")
    seen.append("began")


@chute.on_shutdown()
async def end(self):
    Path(os.environ["MARK"]).write_text("ended")


@chute.cord(public_api_path="/v1/echo")
async def echo(self, text: str) -> dict:
    return {"text": text, "secret": os.environ["TOKEN"], "seen": seen}


@chute.cord(stream=True)
async def count(self, upto: int):
    for i in range(upto):
        yield f"data: {i}\\n\\n"


@chute.cord(stream=True)
async def forever(self):
    try:
        yield "data: first\\n\\n"
        await asyncio.sleep(3600)
    finally:
        seen.append("forever cancelled")


@chute.cord()
def hold(self) -> str:
    release.wait(30)
    return "held"


@chute.cord()
async def block_the_loop(self) -> str:
    Path(os.environ["MARK"]).write_text("blocked")
    release.wait(30)
    return "blocked"


@chute.cord(stream=True)
async def break_off(self):
    yield "data: 0\\n\\n"
    raise RuntimeError("broke in the middle")


@chute.cord()
async def leave_process(self) -> str:
    raise SystemExit(7)


@chute.cord()
async def end_a_child(self) -> int:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode


@chute.cord(public_api_path="/size")
async def size(self, data: str) -> int:
    return len(data)
"""


@dataclass
class Runner:
    """A runner process and the validator's keys for it."""

    process: "subprocess.Popen[str]"
    launch_id: str
    keys: KeyPair
    port: int
    public_key: bytes
    ready_ms: int
    gpus: int
    root: bytes = b""
    order: StartOrder | None = None
    warm: Warm | None = None
    reports: list[str] = field(default_factory=list)

    def root0(self) -> bytes:
        return agree_root(
            self.keys, self.public_key, launch_id=self.launch_id, validator_public=self.keys.public
        )

    def blocking(self, *, generation: int, root: bytes | None = None) -> BlockingConnection:
        return open_blocking(
            "127.0.0.1",
            self.port,
            root=root or (self.root if generation == PROVEN else self.root0()),
            ticket=TICKET,
            launch_id=self.launch_id,
            generation=generation,
            timeout_s=WAIT_S,
        )

    async def open(self, generation: int = PROVEN) -> SealedConnection:
        return await open_connection(
            "127.0.0.1",
            self.port,
            root=self.root if generation == PROVEN else self.root0(),
            ticket=TICKET,
            launch_id=self.launch_id,
            generation=generation,
        )

    def hello(self, connection: BlockingConnection) -> Warm:
        connection.send(FrameKind.HELLO, b"{}")
        return Warm.model_validate_json(expect(connection, FrameKind.WARM).payload)

    def prove(self) -> None:
        """Run the whole proof and keep root 1."""
        with self.blocking(generation=UNPROVEN) as connection:
            self.warm = self.hello(connection)
            challenges = [self.challenge(self.warm, gpu) for gpu in range(self.gpus)]
            answers = {}
            for leg in (1, 2):
                for gpu, challenge in enumerate(challenges):
                    body = (challenge.leg1 if leg == 1 else challenge.leg2).to_bytes()
                    connection.send(FrameKind.LEG, pack_leg(gpu, leg, body))
                for _ in challenges:
                    payload = expect(connection, FrameKind.ANSWER).payload
                    gpu, answered, digest = unpack_leg(payload)
                    assert answered == leg
                    answers[gpu, leg] = digest
            for gpu, challenge in enumerate(challenges):
                assert answers[gpu, 1] == challenge.expected1
                assert answers[gpu, 2] == challenge.expected2
            connection.send(FrameKind.REKEY)
            expect(connection, FrameKind.REKEYED)
        material = verifier.session_key_material(
            [(answers[gpu, 1], answers[gpu, 2]) for gpu in range(self.gpus)]
        )
        self.root = rekey_root(self.root0(), material, launch_id=self.launch_id)

    def challenge(self, warm: Warm, gpu: int) -> verifier.Challenge:
        prover = ProverWarm.from_bytes(bytes.fromhex(warm.devices[gpu]))
        context = SeedContext(
            nonce=secrets.token_bytes(32),
            validator_hotkey="validator",
            miner_hotkey="miner",
            instance_id=self.launch_id,
            node_id="node",
            instance_public_key=self.public_key,
            gpu_index=gpu,
            gpu_count=self.gpus,
            device=prover.device,
            profile_name=PROFILE.name,
            rows=prover.rows_for(PROFILE.name),
            time_s=1_700_000_000,
        )
        return verifier.build_challenge(context, PROFILE, secret=secrets.token_bytes(32))

    def start(self, mark: str, **changes: object) -> Frame:
        """Send START; the frame that answers it."""
        values = {
            "launch_id": self.launch_id,
            "chute_id": str(uuid.uuid4()),
            "version": str(uuid.uuid4()),
            "filename": "demo.py",
            "ref_str": "demo:chute",
            "code": CHUTE,
            "env": {"MARK": mark},
            "secrets": {"TOKEN": "very-secret-token"},
            "concurrency": 2,
            "lease_until_s": int(time.time()) + 600,
        }
        self.order = StartOrder.model_validate(values | changes)
        return self.ask(FrameKind.START, self.order.model_dump_json().encode())

    def ask(self, kind: FrameKind, payload: bytes = b"") -> Frame:
        """Send one frame on a connection of its own; the answer."""
        with self.blocking(generation=PROVEN) as connection:
            connection.send(kind, payload)
            return connection.receive(WAIT_S)

    def children(self) -> list[int]:
        """Process ids of the runner's children."""
        own = str(self.process.pid)
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat") as stat:
                        parent = stat.read().rpartition(")")[2].split()[1]
                except OSError:
                    continue
                if parent == own:
                    found.append(int(entry))
        return found

    def wait(self) -> int:
        """Wait for the process's end; its exit status."""
        return self.process.wait(WAIT_S)

    def errors(self) -> str:
        """What it wrote to stderr, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


def wait_for_text(path: Path, text: str) -> None:
    """Wait until a chute has written it: another process, so there is nothing else to wait on."""
    deadline = time.monotonic() + WAIT_S
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def expect(connection: BlockingConnection, kind: FrameKind) -> Frame:
    frame = connection.receive(WAIT_S)
    assert frame.kind is kind, frame
    return frame


StartRunner = Callable[..., Runner]


@pytest.fixture(scope="module")
def start_runner() -> Iterator[StartRunner]:
    """Return a function that starts runner processes; none outlives the module's tests."""
    started: list[Runner] = []

    def start(gpus: int = 1, *, stand_by: bool = False, **environ: str) -> Runner:
        runner = launch(gpus, environ, stand_by=stand_by)
        started.append(runner)
        return runner

    yield start
    for runner in started:
        if runner.process.poll() is None:
            runner.process.send_signal(signal.SIGKILL)
            runner.process.wait()
        for stream in (runner.process.stdin, runner.process.stdout, runner.process.stderr):
            if stream is not None:
                stream.close()


def launch(gpus: int, environ: dict[str, str], *, stand_by: bool) -> Runner:
    """Start a runner, at once with its launch or first without one."""
    launch_id, keys = str(uuid.uuid4()), KeyPair.generate()
    slots = [{"index": i, "uuid": f"GPU-{i}", "declare": "h100_sxm"} for i in range(gpus)]
    given = {
        "PATH": os.environ["PATH"],
        "CHUTES_RUNNER_LAUNCH_ID": launch_id,
        "CHUTES_RUNNER_VALIDATOR_PUBLIC_KEY": keys.public.hex(),
        "CHUTES_RUNNER_GPUS": json.dumps(slots),
        "CHUTES_EXECUTION_CONTEXT": "REMOTE",
        **environ,
    }
    begun = time.monotonic()
    waiting = json.dumps({"provers": gpus, "declared": True})
    process = subprocess.Popen(
        [sys.executable, "-m", "chutes_core.runner"],
        env={"PATH": given["PATH"], "CHUTES_RUNNER_STAND_BY": waiting} if stand_by else given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE if stand_by else subprocess.DEVNULL,
        text=True,
    )
    if stand_by:
        assert process.stdin is not None
        process.stdin.write(json.dumps(given) + "\n")
        process.stdin.close()
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    ready = json.loads(line)
    return Runner(
        process=process,
        launch_id=launch_id,
        keys=keys,
        port=ready["port"],
        public_key=bytes.fromhex(ready["public_key"]),
        ready_ms=round((time.monotonic() - begun) * 1000),
        gpus=gpus,
    )


@pytest.fixture(name="wait_for_text", scope="session")
def wait_for_text_fixture() -> Callable[[Path, str], None]:
    """Return the function, for test modules import nothing from here."""
    return wait_for_text


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path that the chute's shutdown hook writes."""
    return str(tmp_path_factory.mktemp("mark") / "mark")


@pytest.fixture(scope="module")
def serving(start_runner: StartRunner, mark: str) -> Runner:
    """Return a runner that is proven and serves CHUTE, shared by a module's tests."""
    runner = start_runner()
    runner.prove()
    frame = runner.start(mark)
    assert frame.kind is FrameKind.STARTED, frame
    return runner
