"""invoke, warmup, images, chutes, run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from chutes_core.cli.invoke import choose_cord, text_parameter

INVOCATION = {"X-Chutes-InvocationID": "inv-1"}
CORDS = [
    {
        "function": "embed",
        "path": "/embed",
        "method": "POST",
        "public_api_path": "/v1/embeddings",
        "public_api_method": "POST",
        "input_schema": {"properties": {"input": {"type": "string"}}, "required": ["input"]},
    },
    {"function": "hidden", "path": "/hidden", "method": "POST", "public_api_path": None},
]
CHUTE = {"chute_id": "c1", "name": "app", "slug": "bob-app", "cords": CORDS}


@pytest.fixture
def key(monkeypatch, registered):
    monkeypatch.setenv("CHUTES_API_KEY", "cpk_k")


@pytest.mark.parametrize("cord", ["embed", "/v1/embeddings", "/embed"])
def test_a_cord_is_called_by_function_or_path(run, api, key, registered, cord):
    """The hotkey reads the chute's record, which leads to the public path; the key pays."""
    api.on("GET /chutes/app", CHUTE)
    api.on("POST /c/bob-app/v1/embeddings", {"data": [1]}, headers=dict(INVOCATION))
    done = run("invoke", "app", cord, '{"input": "hi"}', "--json")
    assert done.code == 0
    assert done.json == {"invocation_id": "inv-1", "status": 200, "body": {"data": [1]}}
    assert api.requests[1].json == {"input": "hi"}
    callers = [request.caller for request in api.requests]
    assert callers == [registered.hotkey_ss58, "Bearer cpk_k"]


def test_text_fills_the_cords_text(run, api, key):
    """--text becomes the first text of the cord's input schema."""
    api.on("GET /chutes/app", CHUTE)
    api.on("POST /c/bob-app/v1/embeddings", {"ok": True}, headers=dict(INVOCATION))
    done = run("invoke", "app", "embed", "--text", "hi")
    assert (done.code, json.loads(done.out)) == (0, {"ok": True})
    assert api.requests[1].json == {"input": "hi"}
    assert "invocation inv-1" in done.err


def test_a_cord_without_a_public_path_is_called_as_from_python(run, api, key):
    """Its parameters travel as keyword arguments under the chute's id."""
    api.on("GET /chutes/app", CHUTE)
    api.on("POST /chutes/c1/hidden", 3)
    done = run("invoke", "app", "hidden", '{"n": 1}')
    assert (done.code, done.out.strip()) == (0, "3")
    assert api.requests[1].json == {"args": [], "kwargs": {"n": 1}}


def test_a_key_that_may_only_call_uses_the_slug(run, api, key):
    """Where the record cannot be read, slug and path are enough."""
    api.on("GET /chutes/bob-app", {"detail": "no", "code": "scope"}, status=403)
    api.on("POST /c/bob-app/echo", "hi")
    assert run("invoke", "bob-app", "/echo", '{"text": "hi"}').code == 0
    assert run("invoke", "bob-app", "echo", "{}").code == 1


def test_streams_are_printed_as_they_are(run, api, key):
    """--stream writes the events and nothing else to stdout."""
    api.on("GET /chutes/app", CHUTE)
    api.on("POST /c/bob-app/v1/embeddings", b"data: 1\n\ndata: 2\n\n", headers=dict(INVOCATION))
    done = run("invoke", "app", "embed", "{}", "--stream")
    assert (done.code, done.out) == (0, "data: 1\n\ndata: 2\n\n")


def test_a_stream_that_is_cut_is_no_success(run, api, key):
    """An answer that ends early exits with an error."""
    api.on("GET /chutes/app", CHUTE)
    api.on("POST /c/bob-app/v1/embeddings", b"data: 1\n\n", cut=True)
    done = run("invoke", "app", "embed", "{}", "--stream")
    assert (done.code, done.out) == (1, "data: 1\n\n")
    assert "broken_off" in done.err


def test_a_failed_call_shows_its_invocation(run, api, key):
    """The invocation's id is there for a report, on failure too."""
    api.on("GET /chutes/app", CHUTE)
    api.on(
        "POST /c/bob-app/v1/embeddings",
        {"detail": "busy", "code": "at_capacity"},
        status=429,
        headers={**INVOCATION, "Retry-After": "3"},
    )
    done = run("invoke", "app", "embed", "{}")
    assert done.code == 1
    assert "invocation inv-1" in done.err
    assert "3 s" in done.err


@pytest.mark.parametrize("arguments", [("app", "nothing"), ("app",), ("app", "embed", "{bad")])
def test_bad_use_of_invoke(run, api, key, arguments):
    """A cord that is not there, none where there are two, or a body that is no JSON."""
    api.on("GET /chutes/app", CHUTE)
    done = run("invoke", *arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")


def test_the_only_cord_needs_no_name():
    """A chute with one cord is called without naming it."""
    assert choose_cord(CORDS[:1], None) is CORDS[0]


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        (None, "input"),
        ({"properties": {"n": {"type": "integer"}, "t": {"type": "string"}}}, "t"),
        ({"properties": {"a": {"anyOf": [{"type": "string"}]}}, "required": ["a"]}, "a"),
    ],
)
def test_which_parameter_takes_the_text(schema, name):
    """Required texts come first, then any text, then the usual name."""
    assert text_parameter(schema) == name


def test_warmup_waits_until_hot(run, api, key):
    """Status lines are shown, and a hot chute is success."""
    lines = b'data: {"status": "starting"}\n\ndata: {"status": "hot", "hot": true}\n\n'
    api.on("GET /chutes/warmup/app", lines)
    done = run("warmup", "app")
    assert (done.code, done.out.strip()) == (0, "app is hot")
    assert "starting" in done.err


def test_warmup_that_ends_cold_is_no_success(run, api, key):
    """A stream that ends before the chute is hot exits 1."""
    api.on("GET /chutes/warmup/app", b'data: {"status": "starting"}\n\n')
    assert run("warmup", "app").code == 1


@pytest.mark.parametrize(
    ("noun", "item", "shown"),
    [
        (
            "images",
            {
                "image_id": "i1",
                "name": "a",
                "tag": "1",
                "status": "built",
                "user": {"username": "b"},
            },
            "b/a:1",
        ),
        (
            "chutes",
            {"chute_id": "c1", "name": "a", "slug": "b-a", "hot": True, "user": {"username": "b"}},
            "hot",
        ),
    ],
)
def test_list_get_and_delete(run, api, registered, noun, item, shown):
    """Images and chutes are listed, shown and deleted alike."""
    listing = {"total": 1, "page": 0, "limit": 25, "items": [item]}
    api.on(f"GET /{noun}/", listing)
    api.on(f"GET /{noun}/b/a:1", item)
    api.on(f"DELETE /{noun}/b/a:1", item)
    assert shown in run(noun, "list", "--name", "a", "--include-public").out
    assert api.requests[0].query == {
        "page": ["0"],
        "limit": ["25"],
        "include_public": ["true"],
        "name": ["a"],
    }
    assert run(noun, "list", "--json").json == listing
    assert run(noun, "get", "b/a:1", "--json").json == item
    assert run(noun, "delete", "b/a:1").code == 2
    assert run(noun, "delete", "b/a:1", "--yes").code == 0


RUN_CODE = """
from chutes.chute import Chute

chute = Chute(username="bob", name="app", image="bob/app:1")

@chute.on_startup()
async def load(self):
    self.word = "loaded"
    {start}

@chute.cord(public_api_path="/v1/word")
async def word(self, n: int = 1) -> str:
    return self.word * n
"""


def _serve(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from chutes_core.cli.main import main; exit(main())", "run"]
    return subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_run_serves_a_chute_locally():
    """`run --dev` runs the hooks, serves both ways to a cord, and ends on a signal."""
    Path("app.py").write_text(RUN_CODE.format(start="pass"))
    process = _serve("app:chute", "--dev", "--port", "0", "--json")
    try:
        assert process.stdout is not None
        document = json.loads(process.stdout.readline())
        assert document["paths"] == ["/v1/word", "/word"]
        with httpx.Client(base_url=document["url"], timeout=20, trust_env=False) as client:
            assert client.post("/v1/word", json={"n": 2}).json() == "loadedloaded"
            assert client.post("/word", json={"args": [], "kwargs": {}}).json() == "loaded"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_run_with_a_failing_hook_is_no_success():
    """A start-up hook that raises ends the command with the traceback and a code."""
    Path("app.py").write_text(RUN_CODE.format(start="raise ValueError('no weights')"))
    process = _serve("app:chute", "--dev", "--port", "0")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "no weights" in err
    assert "startup_failed" in err


def test_run_outside_development_is_refused(run):
    """Only --dev serves on a machine of one's own."""
    Path("app.py").write_text(RUN_CODE.format(start="pass"))
    done = run("run", "app:chute")
    assert (done.code, "dev_only" in done.err) == (2, True)


def test_run_without_uvicorn_says_what_to_install(run, monkeypatch):
    """The missing server is named with the line that installs it."""
    Path("app.py").write_text(RUN_CODE.format(start="pass"))
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = run("run", "app:chute", "--dev")
    assert done.code == 2
    assert "pip install" in done.err
