"""A small API on a real socket, and the command run in this process against it."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import bittensor_core
import pytest

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import Unauthenticated
from chutes_core.cli.main import main
from chutes_core.sdk import compat
from chutes_core.sdk.config import ClientConfig, save_config
from chutes_core.wire.signing import verify_user

SEED = "22" * 32
PURPOSES = {"aliases", "images", "chutes", "api_keys", "me", "logs", "invocations", ""}


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    caller: str | None

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass
class Reply:
    """status, body (JSON unless bytes) and headers; or chunks that are sent one by one."""

    body: object = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


class NonceMemory:
    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()

    def check_and_store(self, hotkey_ss58: str, nonce: str, expires_s: int) -> bool:
        fresh = (hotkey_ss58, nonce) not in self.seen
        self.seen.add((hotkey_ss58, nonce))
        return fresh


class FakeApi:
    """Answers what a test put into ``replies`` under "METHOD /path", first in first out."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.requests: list[Request] = []
        self.nonces = NonceMemory()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                api.handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def on(self, route: str, body: object = None, **more) -> None:
        self.replies.setdefault(route, []).append(Reply(body, **more))

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        split = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        try:
            caller = self.authenticate(headers, body, f"{handler.command} {handler.path}")
        except Unauthenticated as error:
            self.send(handler, Reply({"detail": error.message, "code": error.code}, status=401))
            return
        self.requests.append(
            Request(handler.command, split.path, parse_qs(split.query), headers, body, caller)
        )
        queue = self.replies.get(f"{handler.command} {split.path}", [])
        missing = Reply({"detail": "no such thing", "code": "no_such_thing"}, status=404)
        reply = (queue.pop(0) if len(queue) > 1 else queue[0]) if queue else missing
        self.send(handler, reply)

    def authenticate(self, headers: dict[str, str], body: bytes, target: str) -> str | None:
        """Check the signature as the validator does; the purpose is any that the client uses."""
        if "x-chutes-signature" not in headers:
            return headers.get("authorization")
        last = Unauthenticated("auth_malformed", "no purpose fits")
        for purpose in PURPOSES:
            try:
                return verify_user(
                    headers,
                    body or None,
                    purpose=purpose,
                    target=target,
                    nonces=self.nonces,
                    now_s=SystemClock().now_s(),
                ).hotkey_ss58
            except Unauthenticated as error:
                last = error
                if error.code != "auth_bad_signature":
                    break
        raise last

    def send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        raw = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        kind = "text/event-stream" if isinstance(reply.body, bytes) else "application/json"
        handler.send_response(reply.status)
        handler.send_header("Content-Type", reply.headers.pop("Content-Type", kind))
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(raw) + (10 if reply.cut else 0)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(raw)
        handler.close_connection = True


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    api = FakeApi()
    thread = threading.Thread(target=api.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield api
    api.http.shutdown()
    api.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home: no configuration, no validator, a working folder of the test's own."""
    for name in [name for name in os.environ if name.startswith("CHUTES_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "settings" / "config.ini"
    monkeypatch.setenv("CHUTES_CONFIG_PATH", str(path))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield path
    compat.uninstall()


@pytest.fixture
def registered(api: FakeApi, settings: Path) -> ClientConfig:
    """The configuration of a user whom the fake API knows."""
    keypair = bittensor_core.Keypair.create_from_seed(bytes.fromhex(SEED))
    config = ClientConfig(
        api_url=api.url,
        username="bob",
        user_id="user-1",
        hotkey_seed=SEED,
        hotkey_name="default",
        hotkey_ss58=keypair.ss58_address,
    )
    save_config(config, settings)
    return config


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call
