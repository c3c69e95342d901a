"""Ports of a job in a real runner: by frames, and through relay, validator and its public port."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import httpx
import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import ChutesError
from chutes_core.cli.tunnel import open_tunnel
from chutes_core.sdk.credentials import HotkeyCredentials, KeyCredentials
from chutes_core.validator.domain.accounts import Scope
from chutes_core.validator.domain.jobs import JobState
from chutes_core.validator.jobs.ports import reach
from chutes_core.wire.bridge import Ended, SocketEnd, carry
from chutes_core.wire.frames import FrameKind
from chutes_core.wire.job import JobOrder, PortOrder
from tests.protocol.runner.port_house import CHUTE_ID, PortHouse
from tests.unit.launches.test_lights import launch

PATIENCE_S = 60.0
CODE = """
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from chutes.chute import Chute, Port

chute = Chute(username="bob", name="demo", image="bob/app:1")
go_on, ends = threading.Event(), threading.Event()
open_ones = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"6\\r\\nfirst\\n\\r\\n")
            go_on.wait(60)
            self.wfile.write(b"7\\r\\nsecond\\n\\r\\n0\\r\\n\\r\\n")
        elif self.path == "/garbage":
            self.wfile.write(b"this is no HTTP\\r\\n\\r\\n")
            self.close_connection = True
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"abc")
            self.close_connection = True
        elif self.path == "/close":
            self.close_connection = True
        elif self.path == "/two-lengths":
            self.wfile.write(
                b"HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\nContent-Length: 2\\r\\n\\r\\nab"
            )
            self.close_connection = True
        elif self.path == "/huge-head":
            self.send_response(200)
            for number in range(90):
                self.send_header(f"X-{number}", "a" * 1000)
            self.end_headers()
        else:
            if self.path == "/go":
                go_on.set()
            told = {
                "line": self.requestline,
                "headers": [(n.lower(), v) for n, v in self.headers.items()],
                "open": len(open_ones),
            }
            self.answer(json.dumps(told).encode())
            if self.path == "/end":
                ends.set()

    def do_POST(self):
        if self.path == "/early":
            self.close_connection = True
            self.answer(b"enough")
            return
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(body)

    do_PUT = do_DELETE = do_PATCH = do_POST

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "a=b")
        self.send_header("X-Chutes-InvocationID", "mine")
        self.send_header("X-Own", "kept")
        self.send_header("Connection", "keep-alive")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


async def echo(reader, writer):
    open_ones.add(writer)
    size = 0
    try:
        while data := await reader.read(65536):
            size += len(data)
            writer.write(data)
            await writer.drain()
        writer.write(b"<%d>" % size)
        await writer.drain()
    except OSError:
        pass
    finally:
        open_ones.discard(writer)
        writer.close()


@chute.job(
    ports=[
        Port(name="web", port=WEB, proto="http"),
        {"name": "echo", "port": ECHO},
        Port(name="late", port=LATE),
        Port(name="game", port=GAME, proto="udp"),
    ]
)
async def serve(self):
    web = ThreadingHTTPServer(("127.0.0.1", WEB), Handler)
    web.daemon_threads = True
    threading.Thread(target=web.serve_forever, daemon=True).start()
    server = await asyncio.start_server(echo, "127.0.0.1", ECHO)
    while not ends.is_set():
        await asyncio.sleep(0.01)
"""


@pytest.fixture(scope="module")
def job_of(start_runner, tmp_path_factory):
    """Return a function that starts a proven runner whose job serves on ports of its own."""

    def start():
        found = start_runner()
        found.prove()
        numbers = {name: free_port() for name in ("WEB", "ECHO", "LATE", "GAME")}
        code = CODE
        for name, number in numbers.items():
            code = code.replace(f"={name}", f"={number}").replace(f": {name}", f": {number}")
            code = code.replace(f'", {name}', f'", {number}')
        mark = tmp_path_factory.mktemp("mark") / "mark"
        assert found.start(str(mark), code=code).kind is FrameKind.STARTED
        found.job_id = str(uuid.uuid4())
        order = JobOrder(
            job_id=found.job_id, name="serve", arguments="{}", limit_s=600, upload=False
        )
        assert say(found, FrameKind.JOB, order).kind is FrameKind.OK
        found.ports = [
            ("web", numbers["WEB"], "http"),
            ("echo", numbers["ECHO"], "tcp"),
            ("late", numbers["LATE"], "tcp"),
        ]
        return found

    return start


@pytest.fixture(scope="module")
def runner(job_of):
    """One runner for all tests that leave its job alone."""
    return job_of()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def say(runner, kind, message):
    return runner.ask(kind, message.model_dump_json().encode())


def port_order(runner, name):
    return PortOrder(job_id=runner.job_id, name=name)


def test_an_instance_connects_declared_ports_of_its_job_and_nothing_else(runner):
    """Unknown and udp ports, other runs, and a port where nothing listens are refused by code."""
    for name, code in (
        ("nobody", "no_such_port"),
        ("game", "no_such_port"),
        ("late", "port_not_listening"),
    ):
        assert say(runner, FrameKind.PORT, port_order(runner, name)).json()["code"] == code
    other = PortOrder(job_id=str(uuid.uuid4()), name="echo")
    assert say(runner, FrameKind.PORT, other).json()["code"] == "no_such_job"


def test_a_connection_that_became_a_stream_carries_frames_of_bytes_alone(runner):
    """Bytes both ways and a half-close; a control order in between ends it."""
    with runner.blocking(generation=1) as connection:
        until_listening(connection, port_order(runner, "echo"))
        connection.send(FrameKind.BODY, b"hello")
        assert connection.receive(PATIENCE_S).payload == b"hello"
        connection.send(FrameKind.END)
        assert connection.receive(PATIENCE_S).payload == b"<5>"
        assert connection.receive(PATIENCE_S).kind is FrameKind.END
    with runner.blocking(generation=1) as connection:
        until_listening(connection, port_order(runner, "echo"))
        connection.send(FrameKind.JOB_ASK, b"{}")
        with pytest.raises(ChutesError, match="closed"):
            connection.receive(PATIENCE_S)


def until_listening(connection, order):
    """Ask for a port until its job listens; the asking itself is what is waited on."""
    for _ in range(100_000):
        connection.send(FrameKind.PORT, order.model_dump_json().encode())
        frame = connection.receive(PATIENCE_S)
        if frame.kind is FrameKind.OK:
            return
        assert frame.json()["code"] == "port_not_listening"
    raise AssertionError("nothing listens")


@asynccontextmanager
async def house(runner, folder, **options):
    """Serve the public port before a runner; its user holds a key and a run."""
    made = PortHouse(folder, **options)
    made.ends = []
    made.account, key = made.user("ann", Keypair.create_from_uri("//Alice"))
    made.key_id, made.text = key.key.key_id, key.text
    one = replace(launch(1), launch_id=runner.launch_id, chute_id=CHUTE_ID)
    made.run(made.account, one, runner.ports, runner.job_id)
    async with made.serving(runner):
        made.url = f"http://127.0.0.1:{made.port}"
        made.web = f"/jobs/{runner.job_id}/ports/web"
        async with httpx.AsyncClient(
            base_url=made.url, headers={"X-API-Key": made.text}, timeout=PATIENCE_S
        ) as made.http:
            try:
                for name in ("web", "echo"):
                    await listening(made, runner, name)
                cut(made.ends)
                await gone(lambda: made.reach.ways == 0)
                yield made
            finally:
                cut(made.ends)


def cut(ends):
    for end in ends:
        end.abort()


async def listening(house, runner, name):
    for _ in range(100_000):
        try:
            await tunnel(house, runner, name)
            return
        except ChutesError as error:
            if error.code != "port_not_listening":
                raise
    raise AssertionError("nothing listens")


async def tunnel(house, runner, name, signing=None):
    """Open a stream; whatever becomes of it, it is cut when the house is left."""
    signing = signing or KeyCredentials(house.text)
    end = await open_tunnel(house.url, signing, runner.job_id, name)
    house.ends.append(end)
    return end


async def gone(condition):
    """Wait until what ends by itself has ended; a deadline only for what is broken."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 # no event tells it: other processes take part
            await asyncio.sleep(0.01)


async def read_all(end):
    got = b""
    while (piece := await end.receive()) is not None:
        got += piece
    return got


async def test_a_web_server_of_a_job_is_called_by_its_address(runner, tmp_path):
    """Path, query, body and status pass; no credential, cookie or hop-by-hop header does."""
    async with house(runner, tmp_path) as made:
        answer = await made.http.get(
            f"{made.web}/a%2Fb/%41?x=%20y",
            headers={
                "Authorization": f"Bearer {made.text}",
                "Cookie": "session=1",
                "Connection": "x-mine",
                "X-Mine": "dropped",
                "X-Chutes-Nonce": "1",
                "X-Forwarded-For": "10.0.0.1",
                "X-Kept": "yes",
                "TE": "trailers",
            },
        )
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["line"] == "GET /a%2Fb/%41?x=%20y HTTP/1.1"
        seen = dict(told["headers"])
        assert made.text not in json.dumps(told)
        assert seen["x-kept"] == "yes"
        assert seen["x-forwarded-prefix"] == made.web
        assert seen["host"].startswith("127.0.0.1:")
        for name in ("authorization", "x-api-key", "cookie", "x-mine", "x-chutes-nonce", "te"):
            assert name not in seen
        assert "x-forwarded-for" not in seen
        assert answer.headers["x-own"] == "kept"
        assert answer.headers["content-security-policy"] == "sandbox"
        for name in ("set-cookie", "x-chutes-invocationid"):
            assert name not in answer.headers
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            whole = await made.http.request(method, f"{made.web}/", content=b"abc" * 100_000)
            assert whole.content == b"abc" * 100_000

        async def pieces():
            for number in range(100):
                yield b"%d " % number

        chunked = await made.http.post(f"{made.web}/", content=pieces())
        assert chunked.text == "".join(f"{number} " for number in range(100))
        await gone(lambda: made.reach.ways == 0)


async def test_an_answer_passes_piece_by_piece(runner, tmp_path):
    """What the job has sent is there before it sends the rest."""
    async with house(runner, tmp_path) as made:
        async with made.http.stream("GET", f"{made.web}/stream") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "first"
            assert made.reach.ways == 1
            await made.http.get(f"{made.web}/go")
            assert await anext(lines) == "second"
        await gone(lambda: made.reach.ways == 0)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/garbage", "bad_job_answer"),
        ("/close", "job_answer_cut"),
        ("/two-lengths", "bad_job_answer"),
        ("/huge-head", "bad_job_answer"),
    ],
)
async def test_an_answer_that_can_be_read_in_two_ways_or_in_none_is_502(
    runner, tmp_path, path, code
):
    """Nothing of it reaches the caller, who is told why."""
    async with house(runner, tmp_path) as made:
        answer = await made.http.get(f"{made.web}{path}")
        assert (answer.status_code, answer.json()["code"]) == (502, code)
        assert answer.json()["hint"]


async def test_an_answer_before_the_upload_has_ended_is_heard(runner, tmp_path):
    """The job's server has read nothing and closed; its caller is told what it said."""
    async with house(runner, tmp_path) as made:
        for _ in range(5):
            answer = await made.http.post(f"{made.web}/early", content=bytes(5_000_000))
            assert (answer.status_code, answer.content) == (200, b"enough"), answer.text
        await gone(lambda: made.reach.ways == 0)


async def test_an_answer_that_breaks_off_looks_broken_off(runner, tmp_path):
    """It is never completed."""
    async with house(runner, tmp_path) as made:
        with pytest.raises(httpx.RemoteProtocolError):
            await made.http.get(f"{made.web}/cut")


async def test_who_may_not_is_told_why(runner, tmp_path):
    """By code and hint: no proof, no such run, none of yours, no scope, no port, not http."""
    async with house(runner, tmp_path) as made:
        _, strange = made.user("bob", Keypair.create_from_uri("//Bob"))
        narrow = made.key(made.account, Scope("images"))
        base = f"/jobs/{runner.job_id}"
        for headers, path, status, code in (
            ({"X-API-Key": "none"}, made.web + "/", 401, "bad_key"),
            ({"X-API-Key": strange.text}, made.web + "/", 404, "no_such_run"),
            ({"X-API-Key": narrow.text}, made.web + "/", 403, "scope"),
            ({}, f"/jobs/{uuid.uuid4()}/ports/web/", 404, "no_such_run"),
            ({}, f"{base}/ports/nobody/", 404, "no_such_port"),
            ({}, f"{base}/ports/echo/", 422, "not_http_port"),
            ({}, f"{base}/tunnels/nobody", 404, "no_such_port"),
            ({}, f"{base}/tunnels/echo", 422, "upgrade_needed"),
            ({}, f"{base}%2Fports/web/x", 404, "no_such_path"),
            ({"X-Long": "a" * 70_000}, made.web + "/", 431, "too_many_headers"),
            ({}, made.web + "/" + "a" * 9_000, 414, "uri_too_long"),
        ):
            answer = await made.http.get(path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code), path
            assert answer.json()["hint"]
        with pytest.raises(ChutesError) as refused:
            await tunnel(made, runner, "late")
        assert refused.value.code == "port_not_listening"
        assert refused.value.facts["http_status"] == 503
        view = (await made.http.get(base)).json()["ports"]
        assert view[0] == {
            "name": "web",
            "port": runner.ports[0][1],
            "proto": "http",
            "path": f"{base}/ports/web/",
            "tunnel": f"{base}/tunnels/web",
        }
        assert view[1]["path"] is None


async def test_a_stream_carries_both_ways_and_knows_a_half_close(runner, tmp_path):
    """Much more than any buffer holds; the job answers after the caller's end, then both close."""
    async with house(runner, tmp_path) as made:
        end = await tunnel(made, runner, "echo")
        sent = os.urandom(3_000_000)

        async def sending():
            await end.send(sent)
            await end.send_end()

        _, got = await asyncio.gather(sending(), read_all(end))
        assert got == sent + b"<3000000>"
        with pytest.raises(ChutesError):
            await end.receive()  # the validator has closed it
        await gone(lambda: made.reach.ways == 0)


async def test_a_hotkey_opens_a_stream_too(runner, tmp_path):
    """By the same signature as every call without a body."""
    async with house(runner, tmp_path) as made:
        signing = HotkeyCredentials(Keypair.create_from_uri("//Alice"), made.account.user_id)
        end = await tunnel(made, runner, "echo", signing)
        await asyncio.gather(end.send(b"x"), end.send_end())
        assert await read_all(end) == b"x<1>"


async def test_who_vanishes_leaves_nothing_open(runner, tmp_path):
    """Neither at the validator nor in the job: after a cut stream, and after a cut request."""
    async with house(runner, tmp_path) as made:
        ends = [await tunnel(made, runner, "echo") for _ in range(5)]
        for end in ends:
            await end.send(b"x")
            assert await end.receive() == b"x"
        assert (await made.http.get(f"{made.web}/")).json()["open"] == 5
        for end in ends:
            end.abort()
        await gone(lambda: made.reach.ways == 0)
        for _ in range(100_000):
            if not (await made.http.get(f"{made.web}/")).json()["open"]:
                break
        else:
            raise AssertionError("the job's connections stay open")


async def test_so_many_connections_a_run_may_have(runner, tmp_path, monkeypatch):
    """One more is 429, for streams and requests alike, until one has ended."""
    monkeypatch.setattr(reach, "MAX_WAYS_PER_RUN", 2)
    async with house(runner, tmp_path) as made:
        first, _second = [await tunnel(made, runner, "echo") for _ in range(2)]
        with pytest.raises(ChutesError) as refused:
            await tunnel(made, runner, "echo")
        assert (refused.value.code, refused.value.facts["http_status"]) == (
            "too_many_port_connections",
            429,
        )
        assert (await made.http.get(f"{made.web}/")).status_code == 429
        first.abort()
        await gone(lambda: made.reach.ways == 1)
        assert (await made.http.get(f"{made.web}/")).status_code == 200
        monkeypatch.setattr(reach, "MAX_WAYS", 1)
        answer = await made.http.get(f"{made.web}/")
        assert (answer.status_code, answer.json()["code"]) == (429, "ports_full")
        assert int(answer.headers["retry-after"]) > 0


async def test_a_stream_ends_with_its_key(runner, tmp_path):
    """A revoked key's open connections are found and closed."""
    async with house(runner, tmp_path, check_s=0.01) as made:
        end = await tunnel(made, runner, "echo")
        await end.send(b"x")
        assert await end.receive() == b"x"
        made.accounts.delete_key(made.account, made.key_id)
        with pytest.raises(ChutesError):
            await end.receive()
        await gone(lambda: made.reach.ways == 0)


async def test_a_stream_ends_with_the_run_and_with_the_validator(runner, tmp_path, monkeypatch):
    """A moment after the run is told to have ended; a run that does not run is 409."""
    monkeypatch.setattr(reach, "LAST_WORDS_S", 0.01)
    async with house(runner, tmp_path) as made:
        end = await tunnel(made, runner, "echo")
        made.reach.close_run(runner.job_id)
        with pytest.raises(ChutesError):
            await end.receive()
        other = await tunnel(made, runner, "echo")
        made.reach.close()
        with pytest.raises(ChutesError):
            await other.receive()
        made.store.jobs.advance(runner.job_id, JobState.RUNNING, JobState.SAVING)
        answer = await made.http.get(f"{made.web}/")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_running")


async def test_a_jobs_connections_end_with_it(job_of, tmp_path):
    """The instance itself closes them, whatever its validator does; new ones are refused."""
    own = job_of()
    async with house(own, tmp_path) as made:
        end = await tunnel(made, own, "echo")
        await end.send(b"x")
        assert await end.receive() == b"x"
        assert (await made.http.get(f"{made.web}/end")).status_code == 200
        with pytest.raises(ChutesError):
            await end.receive()
        with pytest.raises(ChutesError) as refused:
            await tunnel(made, own, "echo")
        assert (refused.value.code, refused.value.facts["http_status"]) == ("job_not_running", 409)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_makes_a_port_a_local_one_until_it_is_told_to_end(
    runner, tmp_path, number
):
    """Both kinds of port; a signal ends it with 0, and its connections with it."""
    async with house(runner, tmp_path) as made:
        environ = os.environ | {
            "CHUTES_API_URL": made.url,
            "CHUTES_API_KEY": made.text,
            "CHUTES_CONFIG_PATH": str(tmp_path / "none.ini"),
        }
        code = "import sys; from chutes_core.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "jobs", "forward", runner.job_id, "echo", "--json"]
        process = await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=subprocess.PIPE
        )
        try:
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
            local = json.loads(line)["port"]
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            writer.write(b"through the command")
            writer.write_eof()
            assert await reader.read() == b"through the command<19>"
            writer.close()
            held_reader, held_writer = await asyncio.open_connection("127.0.0.1", local)
            made.ends.append(SocketEnd(held_reader, held_writer))
            held_writer.write(b"y")
            assert await held_reader.readexactly(1) == b"y"
            process.send_signal(number)
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
            with contextlib.suppress(ConnectionError):
                assert await held_reader.read() == b""
            await gone(lambda: made.reach.ways == 0)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_a_local_socket_and_a_stream_are_bridged_with_their_half_closes(runner, tmp_path):
    """What a plain TCP client does to a port is what the job sees."""
    async with house(runner, tmp_path) as made:
        ended = []

        async def accepted(reader, writer):
            end = await tunnel(made, runner, "echo")
            local = SocketEnd(reader, writer)
            ended.append(await carry(local, end, idle_s=PATIENCE_S))
            await local.close()

        async with await asyncio.start_server(accepted, "127.0.0.1", 0) as server:
            place = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*place)
            writer.write(b"abc")
            writer.write_eof()
            assert await reader.read() == b"abc<3>"
            writer.close()
            await gone(lambda: ended == [Ended.WHOLE])
