"""An arbitrary web server behind a chute: started by a hook, reached by passthrough cords.

The server knows nothing of chutes; it is Python's own here, and could be any program that listens
on the instance's loopback. Requests reach it as they came (method, query, body, headers), and its
answer goes back as it is, piece by piece.
"""

import asyncio
import os
import sys
import urllib.error
import urllib.request
from typing import Any

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

PORT = int(os.environ.get("WEBSERVER_PORT", "8080"))
SERVER = """
import http.server, json, sys, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        name = query.get("name", ["world"])[0]
        self.answer(200, "text/html; charset=utf-8", f"<h1>Hello, {name}</h1>".encode())

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        body = json.dumps({"words": len(text.split())}).encode()
        self.answer(200, "application/json", body)

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

image = Image(username="demo", name="webserver", tag="1.0").from_base("parachutes/python:3.12")

chute = Chute(
    username="demo",
    name="webserver",
    image=image,
    tagline="A web server of its own",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
    concurrency=16,
)


@chute.on_startup()
async def start_server(self: Any) -> None:
    command = (sys.executable, "-c", SERVER, str(PORT))
    self.server = await asyncio.create_subprocess_exec(*command)
    while not await asyncio.to_thread(answers):
        if self.server.returncode is not None:
            raise RuntimeError(f"the server ended with {self.server.returncode}")
        await asyncio.sleep(0.1)


@chute.on_shutdown()
async def stop_server(self: Any) -> None:
    self.server.terminate()
    await self.server.wait()


def answers() -> bool:
    """Return whether the server takes requests."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=5):
            return True
    except urllib.error.URLError:
        return False


@chute.cord(
    passthrough=True,
    passthrough_port=PORT,
    passthrough_path="/hello",
    method="GET",
    public_api_path="/hello",
    public_api_method="GET",
    output_content_type="text/html",
)
async def hello(data: Any) -> str:
    """A page: GET /hello?name=Ada."""
    return ""


@chute.cord(
    passthrough=True, passthrough_port=PORT, passthrough_path="/count", public_api_path="/count"
)
async def count(data: Any) -> dict[str, int]:
    """How many words a text has: POST /count with the text as the body."""
    return {}
