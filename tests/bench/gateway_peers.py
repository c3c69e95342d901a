"""Other servers of models as contenders: LiteLLM's proxy, BentoML, Ray Serve, where installed.

Each is set up as its own pages say for production, with one worker, and passes the same body on to
the same origin, in plain HTTP: LiteLLM by its OpenAI-compatible routes (embeddings; chat for
streams, in that form) with its master key, BentoML by a service with an async method each
(peer_bento.py), Ray Serve by a deployment behind its own proxy (peer_ray.py). Each runs with an
interpreter that can import it, all of its processes on the contender's core; none may report home.
One that cannot be measured is named with the reason.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
from contenders import ASKED, HERE, START_S, Contender, free_port, served

LITELLM = """
model_list:
- model_name: bench
  litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{origin}/v1", api_key: none}}
litellm_settings: {{set_verbose: false, request_timeout: 600, telemetry: false}}
general_settings: {{master_key: sk-bench, forward_client_headers_to_llm_api: true}}
"""
CHAT = (
    '{"messages": [{"role": "user", "content": "a sentence of ordinary length"}], "stream": true}'
)
QUIET = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DEFAULT_HTTP_HOST": "127.0.0.1",
}


@contextlib.contextmanager
def litellm(python: str, origin: int) -> Iterator[Contender]:
    """LiteLLM's proxy; the body is an embedding's, so it needs no other for its route."""
    with tempfile.TemporaryDirectory() as directory:
        port, config = free_port(), Path(directory, "config.yaml")
        config.write_text(LITELLM.format(origin=origin))
        command = [
            *(python, "-c", "from litellm import run_server; run_server()"),
            *("--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
            *("--num_workers", "1", "--telemetry", "False"),
        ]
        with _run(command, port, directory) as process:
            path = "/openai/deployments/bench"
            calls = {"whole": "/embeddings", "streamed": "/chat/completions", "asked": CHAT}
            yield Contender("litellm", process.pid, port, path, "sk-bench", **calls)


@contextlib.contextmanager
def bentoml(python: str, origin: int) -> Iterator[Contender]:
    """A BentoML service of one worker."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        command = [
            *(python, "-m", "bentoml", "serve", "peer_bento:Peer", "--do-not-track", "--quiet"),
            *("--working-dir", str(HERE), "--host", "127.0.0.1", "--port", str(port)),
        ]
        own = {"BENTOML_HOME": directory, "ORIGIN": str(origin)}
        with _run(command, port, directory, own) as process:
            yield Contender("bentoml", process.pid, port, "", "none")


@contextlib.contextmanager
def ray(python: str, origin: int) -> Iterator[Contender]:
    """A Ray Serve deployment of one replica, behind the proxy of its node."""
    with tempfile.TemporaryDirectory(prefix="r") as directory:  # Ray's sockets have long names
        port = free_port()
        command = [python, str(HERE / "peer_ray.py"), str(port), str(origin), directory]
        with _run(command, port, directory) as process:
            yield Contender("ray", process.pid, port, "", "none")


PEERS: dict[str, Callable[[str, int], AbstractContextManager[Contender]]] = {
    "litellm": litellm,
    "bentoml": bentoml,
    "ray": ray,
}


def interpreters(peers: Sequence[str], given: Sequence[str]) -> tuple[dict[str, str], dict]:
    """Return an interpreter for each peer that one of those given can import, and why others lack.

    The version stands beside it: what was measured is to be told.
    """
    found, lacking = {}, {}
    for peer in peers:
        for python in given:
            if _version(python, peer):
                found[peer] = python
                break
        else:
            lacking[peer] = f"not installed for {', '.join(given)} (--peers-python)"
    return found, lacking


def versions(found: dict[str, str]) -> dict[str, str]:
    """Return the peers' versions."""
    return {peer: _version(python, peer) for peer, python in found.items()}


def answers(contender: Contender) -> str:
    """Return why a contender does not answer a call of each form, empty once it does."""
    until, why = time.monotonic() + START_S, ""
    while time.monotonic() < until:
        if not (why := _first_failure(contender)):
            break
        time.sleep(0.5)
    return why


def _first_failure(contender: Contender) -> str:
    said = {"content-type": "application/json", "authorization": f"Bearer {contender.key}"}
    for path, body in ((contender.whole, ASKED), (contender.streamed, contender.asked)):
        url = f"http://127.0.0.1:{contender.port}{contender.path}{path}"
        headers = {**said, "x-count": "2", "x-every-us": "0"}
        try:
            answer = httpx.post(url, content=body, headers=headers, timeout=60)
        except httpx.HTTPError as error:
            return f"{path}: {type(error).__name__}: {error}"
        if answer.status_code != 200:
            return f"{path}: {answer.status_code}: {answer.text[:300]}"
    return ""


def _version(python: str, peer: str) -> str:
    asked = f"import importlib.metadata as m; print(m.version({peer!r}))"
    out = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    return out.stdout.strip()


def _run(
    command: list[str], port: int, directory: str, more: dict[str, str] | None = None
) -> AbstractContextManager[subprocess.Popen]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    env = {**kept, "HOME": directory, **QUIET, **(more or {})}
    return served(command, port, log=Path(directory, "log"), env=env, cwd=directory)


if __name__ == "__main__":
    print(json.dumps(interpreters(list(PEERS), sys.argv[1:] or [sys.executable])))
