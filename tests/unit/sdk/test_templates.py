"""Templates: what they refuse, the engines' command lines, and an engine beside the chute."""

import asyncio
import socket
from textwrap import dedent

import httpx
import pytest
from starlette.testclient import TestClient

from chutes_core.base.errors import Invalid, Unavailable
from chutes_core.sdk.chute import Chute
from chutes_core.sdk.node_selector import NodeSelector
from chutes_core.sdk.templates import embedding, sglang, vllm
from chutes_core.sdk.templates.diffusion import build_diffusion_chute
from chutes_core.sdk.templates.embedding import build_embedding_chute
from chutes_core.sdk.templates.engine import Engine, engine_arguments
from chutes_core.sdk.templates.sglang import build_sglang_chute
from chutes_core.sdk.templates.vllm import build_vllm_chute

PINNED = "a" * 40
WAIT_S = 60
SERVER = """
    import http.server, json, sys

    words = sys.argv[1:]
    key = words[words.index("--api-key") + 1]
    port = int(words[words.index("--port") + 1])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers["Authorization"] == "Bearer " + key
            self.answer(200 if known else 401, {"data": [{"id": "tiny"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(200, {"path": self.path, "said": body})

        def answer(self, status, document):
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *arguments):
            pass

    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def free_port():
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.mark.parametrize("build", [build_vllm_chute, build_sglang_chute, build_embedding_chute])
def test_a_language_model_is_pinned_to_a_revision(build):
    """Without a revision every instance could serve another model: refused, with what to write."""
    with pytest.raises(Invalid, match="revision_missing") as caught:
        build("bob", "Org/M", NodeSelector())
    assert "revision=" in caught.value.hint


@pytest.mark.parametrize("word", ["--revision main", "--api-key=x", "--port 1"])
def test_what_the_template_sets_cannot_be_set_again(word):
    """An engine argument that would undo the template's own is refused by its name."""
    with pytest.raises(Invalid, match=word.replace("=", " ").split()[0]):
        build_vllm_chute("bob", "Org/M", NodeSelector(), engine_args=word, revision=PINNED)


def test_engine_arguments_may_stand_on_several_lines():
    """Backslashes at line ends and blanks of any number divide the arguments."""
    assert engine_arguments("  --a 1 \\\n   --b=2", ()) == ["--a", "1", "--b=2"]


def test_the_command_lines_split_the_model_over_all_gpus():
    """Each engine gets model, revision and GPU count, unless the developer counts for himself."""
    line = vllm.command("Org/M", PINNED, 4, [])
    assert line[line.index("--tensor-parallel-size") + 1] == "4"
    assert "--no-enable-log-requests" in line
    line = sglang.command("Org/M", PINNED, 4, ["--tp=2"])
    assert "--tp" not in line
    assert line[-1] == "--tp=2"
    line = embedding.command("Org/M", PINNED, 1, {"pooling_type": "CLS"}, [])
    assert '{"pooling_type": "CLS"}' in line


def test_a_pack_names_its_cords():
    """A template's answer holds the chute and its cords, and the file may export either."""
    pack = build_vllm_chute("bob", "Org/M", NodeSelector(gpu_count=2), revision=PINNED)
    assert isinstance(pack.chute, Chute)
    assert pack.chat.public_api_path == pack.chat_stream.public_api_path
    assert pack.chat_stream.stream
    assert pack.models.public_api_method == "GET"
    painter = build_diffusion_chute("bob", "p", "Org/sdxl", NodeSelector())
    assert painter.generate.announced_content_type == "image/jpeg"


async def test_an_engine_is_awaited_and_keeps_its_key(tmp_path, free_port):
    """The hook returns once the server answers; without the key of this process it does not."""
    (tmp_path / "server.py").write_text(dedent(SERVER))
    engine = Engine([str(tmp_path / "server.py")], port=free_port)
    await asyncio.wait_for(engine.start(), WAIT_S)
    url = f"http://127.0.0.1:{free_port}/v1/models"
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(url)).status_code == 401
        assert (await client.get(url, headers=engine.headers)).status_code == 200
    await engine.stop()
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_an_engine_that_ends_at_once_fails_the_start(tmp_path):
    """An engine that cannot start is told as such, with its exit code."""
    (tmp_path / "server.py").write_text("raise SystemExit(7)")
    with pytest.raises(Unavailable, match="ended with 7"):
        await asyncio.wait_for(Engine([str(tmp_path / "server.py")]).start(), WAIT_S)


async def test_an_engine_that_dies_later_ends_the_instance(tmp_path, free_port):
    """What happens to the server happens to the instance: whoever started it is told."""
    text = dedent(SERVER).replace("self.answer(200, {", "import os; os._exit(3); ({")
    (tmp_path / "server.py").write_text(text)
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    engine = Engine([str(tmp_path / "server.py")], port=free_port, on_end=ended.set_result)
    await asyncio.wait_for(engine.start(), WAIT_S)
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.post(f"http://127.0.0.1:{free_port}/x", json={}, headers=engine.headers)
    assert await asyncio.wait_for(ended, WAIT_S) == 3


def test_a_language_chute_serves_through_its_engine(tmp_path, free_port, monkeypatch):
    """With a server in vLLM's place, the chute's paths answer through it, with its key."""
    (tmp_path / "server.py").write_text(dedent(SERVER))
    monkeypatch.setattr("chutes_core.sdk.templates.engine.download", lambda *_: str(tmp_path))
    monkeypatch.setattr("chutes_core.sdk.templates.language.PORT", free_port)
    monkeypatch.setattr(
        "chutes_core.sdk.templates.engine.Engine",
        lambda *_: Engine([str(tmp_path / "server.py")], port=free_port),
    )
    pack = build_vllm_chute("bob", "Org/M", NodeSelector(), revision=PINNED)
    with TestClient(pack.chute) as client:
        assert client.get("/v1/models").json() == {"data": [{"id": "tiny"}]}
        answer = client.post("/v1/chat/completions", json={"stream": False, "n": 1})
        assert answer.json() == {"path": "/v1/chat/completions", "said": {"stream": False, "n": 1}}
