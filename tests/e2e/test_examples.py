"""The examples, each run by ChuteClient as the runner runs it, and one of them in a network."""

import ast
import base64
import importlib
import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys

import httpx
import pytest
from websockets.sync.client import connect

from chutes_core.base.errors import ChutesError
from chutes_core.sdk import compat
from chutes_core.testing import ChuteClient
from scripts.localnet import ROOT, wait_until
from tests.e2e.model import with_packages
from tests.e2e.people import rich_user

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAIAAAB7QOjdAAAAD0lEQVR4nGP4z8DwHwQZABLxA/2rY8m2AAAAAElFTkSuQmCC"
)
WORDS = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def example():
    """Return a function that opens an example; our SDK is put away again afterwards."""
    yield lambda name: ChuteClient(f"examples/{name}.py:chute", ROOT)
    compat.uninstall()


def test_a_web_server_answers_through_its_chute(example, monkeypatch):
    """Query, body, content type and status pass through to a server that knows no chutes."""
    monkeypatch.setenv("WEBSERVER_PORT", str(free_port()))
    with example("webserver") as client:
        page = client.get("/hello", params={"name": "Ada"})
        assert page.text == "<h1>Hello, Ada</h1>"
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert client.post("/count", content="one two three").json() == {"words": 3}


def test_a_job_leaves_its_model(example):
    """The job's files are its upload, and its result is what the model file says."""
    with example("fit_job") as client:
        output = client.run_job("fit")
        assert output.result.status == "complete"
        assert json.loads(output.files["model.json"]) == output.result.result
        assert output.result.result["slope"] == pytest.approx(1.97, abs=0.05)
        assert output.files["log.csv"].startswith(b"step,loss\n0,")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


TALK_CORD = """@chute.cord(
    passthrough=True,
    passthrough_port=PORT,
    passthrough_path="/talk",
    public_api_path="/talk",
    public_api_method="GET",
)
async def talk(data: Any) -> str:
    return ""


"""
TALKS = """    def do_GET(self):
        if self.headers.get("Upgrade") == "websocket":
            return self.talk()
"""
TALK = """    def talk(self):
        import base64, hashlib
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.protocol_version = "HTTP/1.1"
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.close_connection, kind = True, 0
        while kind & 15 != 8:
            kind, size = self.rfile.read(2)
            mask = self.rfile.read(4)
            body = self.rfile.read(size & 127)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))
            self.wfile.write(bytes([kind, len(text)]) + text)

"""
BY_COUNT = '@chute.cord(\n    passthrough=True, passthrough_port=PORT, passthrough_path="/count"'
WITH_A_WEBSOCKET = (
    ("    def do_GET(self):\n", TALKS),
    ("    def do_POST(self):\n", f"{TALK}    def do_POST(self):\n"),
    (BY_COUNT, TALK_CORD + BY_COUNT),
)


def test_a_web_server_is_reached_in_a_network(network):
    """Deployed and proven by a miner: query, body and type pass through gateway and relay.

    So do a websocket's messages; it is one call in the ledger, whatever was said.
    """
    user = rich_user(network.net, network.url(1), "webmaster")
    port = ('"8080"', f'"{free_port()}"')
    user.deploy_as_own("webserver", changes=(port, *WITH_A_WEBSOCKET))
    place = f"{network.url(1)}/c/webmaster-webserver"
    with httpx.Client(headers=user.headers, timeout=400) as client:
        page = client.get(f"{place}/hello", params={"name": "Ada"})
        assert (page.status_code, page.text) == (200, "<h1>Hello, Ada</h1>")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert client.post(f"{place}/count", content="one two three").json() == {"words": 3}
    invocation = talked(f"ws{place.removeprefix('http')}/talk", user.headers)
    wait_until(lambda: invocation in dict(user.charges()), 400, "the websocket to be settled")
    (charged,) = (rao for one, rao in user.charges() if one == invocation)
    assert charged > 0
    user.chutes("chutes", "delete", "webserver", "--yes")


def talked(uri, headers):
    """Say something over a websocket, which comes back; return the invocation's id."""
    options = {"proxy": None, "compression": None, "open_timeout": 400, "close_timeout": 400}
    with connect(uri, additional_headers=headers, **options) as socket:
        for message in ("Hello", b"\0\1", "Ada"):
            socket.send(message)
            assert socket.recv(timeout=400) == message
        return socket.response.headers["X-Chutes-InvocationID"]


def test_a_job_runs_in_a_network_and_its_files_are_fetched(network, tmp_path):
    """On an instance of its own, proven like any; paid by the second, and its files are whole."""
    user = rich_user(network.net, network.url(2), "fitter")
    user.deploy_as_own("fit_job")
    before_rao = user.balance_rao()
    done = user.chutes(
        *("jobs", "run", "fit", "fit", "--arg", "steps=300", "--timeout", "300"),
        *("--output-dir", str(tmp_path / "out")),
    )
    assert (done["state"], done["reason"], done["job"]) == ("complete", "", "fit")
    model = json.loads((tmp_path / "out" / "model.json").read_text())
    assert model == done["result"]
    assert model["slope"] == pytest.approx(1.97, abs=0.1)
    assert (tmp_path / "out" / "log.csv").read_text().startswith("step,loss\n0,")
    assert 0 < done["charge_rao"] == before_rao - user.balance_rao()
    (listed,) = user.chutes("jobs", "list", "--chute", "fit")["items"]
    assert (listed["job_id"], listed["state"]) == (done["job_id"], "complete")
    user.chutes("jobs", "delete", done["job_id"], "--yes")
    assert user.chutes("jobs", "list")["total"] == 0
    user.chutes("chutes", "delete", "fit", "--yes")


SERVING = """
@chute.job(
    timeout=300,
    upload=False,
    ports=[
        {"name": "web", "port": WEB, "proto": "http"},
        {"name": "echo", "port": ECHO, "proto": "tcp"},
    ],
)
async def serve(self: Any) -> dict[str, str]:
    import asyncio
    import http.server
    import threading

    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(201)
            self.send_header("X-Seen", self.path)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[::-1])
            if self.path == "/end":
                loop.call_soon_threadsafe(told.set)

    async def echo(reader: Any, writer: Any) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"<end>")
        writer.close()

    web = http.server.ThreadingHTTPServer(("127.0.0.1", WEB), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    await asyncio.start_server(echo, "127.0.0.1", ECHO)
    await told.wait()
    await asyncio.sleep(1)  # so that the answer has left before the instance ends
    return {"told": "to end"}


@chute.job(timeout=600, upload=True)
"""


@pytest.mark.timeout(400)
def test_a_jobs_ports_are_reached_in_a_network(network):
    """Http by its address and tcp by a local port, through validator and relay, while it runs."""
    user = rich_user(network.net, network.url(1), "listener")
    job = SERVING.replace("WEB", str(free_port())).replace("ECHO", str(free_port()))
    user.deploy_as_own("fit_job", changes=(("@chute.job(timeout=600, upload=True)\n", job),))
    job_id = user.chutes("jobs", "run", "fit", "serve", "--timeout", "300")["job_id"]
    web = f"{user.url}/jobs/{job_id}/ports/web"
    with httpx.Client(headers=user.headers, timeout=120) as client:
        answers = []

        def listening():
            answers.append(client.post(f"{web}/a%20b?c=d", content=b"abc"))
            return answers[-1].status_code == 201

        wait_until(listening, 240, "the job's web server")
        early = {(one.status_code, one.json()["code"]) for one in answers[:-1]}
        assert early <= {(409, "job_not_running"), (503, "port_not_listening")}
        assert (answers[-1].content, answers[-1].headers["x-seen"]) == (b"cba", "/a%20b?c=d")
        assert httpx.post(f"{web}/", content=b"x").status_code == 401
        forward = subprocess.Popen(
            user.command("jobs", "forward", job_id, "echo"),
            env=user.environ,
            stdout=subprocess.PIPE,
        )
        try:
            local = json.loads(forward.stdout.readline())["port"]
            with socket.create_connection(("127.0.0.1", local), timeout=120) as plain:
                plain.sendall(b"hello" * 50_000)
                plain.shutdown(socket.SHUT_WR)
                got = b"".join(iter(lambda: plain.recv(65536), b""))
            assert got == b"hello" * 50_000 + b"<end>"
            assert client.post(f"{web}/end", content=b"").status_code == 201
            done = user.chutes("jobs", "watch", job_id)
            assert (done["state"], done["result"]) == ("complete", {"told": "to end"})
            assert forward.wait(120) == 0  # it ends with the run
        finally:
            forward.kill()
            forward.wait()
            forward.stdout.close()
        after = client.post(f"{web}/", content=b"x")
        assert (after.status_code, after.json()["code"]) == (409, "job_not_running")
    assert done["charge_rao"] > 0
    user.chutes("chutes", "delete", "fit", "--yes")


@pytest.fixture
def pillow():
    """Pillow, put into a folder of the checkout's own where this environment lacks it."""
    with with_packages("pillow~=12.0"):
        yield importlib.import_module("PIL.Image")


def test_a_picture_goes_in_and_a_picture_comes_out(example, pillow):
    """Two pixels side by side are one above the other afterwards; what is no picture is refused."""
    with example("pictures") as client:
        body = {"image_b64": base64.b64encode(PNG).decode(), "change": "turn"}
        answer = client.post("/change", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert pillow.open(io.BytesIO(answer.content)).size == (1, 2)
        for wrong in ("%%%", base64.b64encode(b"no picture").decode()):
            assert client.post("/change", json={"image_b64": wrong}).status_code == 422


def test_a_picture_goes_through_a_network(network, pillow):
    """A base64 body in, the bytes of a PNG with its type out, and a 422 of the chute's own."""
    user = rich_user(network.net, network.url(1), "painter")
    user.deploy_as_own("pictures")
    place = f"{network.url(1)}/c/painter-pictures/change"
    body = {"image_b64": base64.b64encode(PNG).decode(), "change": "turn"}
    with httpx.Client(headers=user.headers, timeout=400) as client:
        answer = client.post(place, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert pillow.open(io.BytesIO(answer.content)).size == (1, 2)
        assert client.post(place, json={"image_b64": "%%%"}).status_code == 422
    user.chutes("chutes", "delete", "pictures", "--yes")


@pytest.fixture
def transformers():
    """Skip where transformers and torch are not installed: together they are gigabytes."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: scripts/setup.sh dev,examples")


@pytest.mark.filterwarnings("default")  # of the two libraries
def test_a_llama_chats_in_a_stream_as_at_once(example, transformers):
    """The stream's letters are those of the whole answer, and the seed decides which."""
    with example("chat") as client:
        asked = {**WORDS, "max_tokens": 8, "seed": 3}
        whole = client.post("/v1/chat/completions", json=asked).json()
        said = whole["choices"][0]["message"]["content"]
        assert len(said) == whole["usage"]["completion_tokens"] == 8
        lines = client.post("/v1/chat/completions", json={**asked, "stream": True}).text
        events = [line.removeprefix("data: ") for line in lines.split("\n\n") if line]
        assert events.pop() == "[DONE]"
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
        assert "".join(delta.get("content", "") for delta in deltas) == said
        pieces = client.stream("chat_stream", request=asked)
        assert "assistant" in next(pieces)
        pieces.close()
        with pytest.raises(ChutesError, match="invalid_input"):
            client.call("chat", request={**asked, "max_tokens": 0})


def test_a_llama_chats_in_a_network(network, transformers):
    """OpenAI's path, at once and as a stream of events: the same letters, and a bill for each."""
    user = rich_user(network.net, network.url(1), "talker")
    user.deploy_as_own("chat")
    place = f"{network.url(1)}/c/talker-chat/v1/chat/completions"
    asked = {**WORDS, "max_tokens": 12, "seed": 5}
    with httpx.Client(headers=user.headers, timeout=400) as client:
        answer = client.post(place, json=asked)
        assert answer.status_code == 200, answer.text
        said = answer.json()["choices"][0]["message"]["content"]
        with client.stream("POST", place, json={**asked, "stream": True}) as streamed:
            assert streamed.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in streamed.iter_lines() if line]
    assert lines.pop() == "data: [DONE]"
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines]
    assert len(said) == 12
    assert "".join(delta.get("content", "") for delta in deltas) == said
    user.chutes("chutes", "delete", "chat", "--yes")


def test_the_examples_extra_is_what_their_images_install():
    """Whoever runs these tests with `dev,examples` has what a deployed example has."""
    named = set(ast.literal_eval(assigned(ROOT / "setup.py", "EXAMPLES")))
    texts = [(ROOT / "examples" / f"{name}.py").read_text() for name in ("chat", "pictures")]
    installs = [re.search(r'"pip install ([^"]+)"', text) for text in texts]
    assert named == {word for found in installs for word in found[1].split()}


def assigned(path, name):
    """Return the source of what a module assigns to a name."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.unparse(node.value)
    raise AssertionError(f"{path} has no {name}")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "examples").glob("*.py")))
def test_every_example_loads_without_what_its_image_has(name):
    """`chutes inspect` works on a laptop that has neither torch nor numpy nor Pillow."""
    program = (
        "import sys\n"
        "for one in ('torch', 'transformers', 'numpy', 'PIL', 'tokenizers', 'safetensors'):\n"
        "    sys.modules[one] = None\n"
        "from chutes_core.cli.main import main\n"
        f"sys.exit(main(['inspect', '{name}:chute']))\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command,
        cwd=ROOT / "examples",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"demo/{name.removesuffix('_job')}" in done.stdout
