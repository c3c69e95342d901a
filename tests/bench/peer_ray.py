"""Ray Serve's contender: a deployment that passes requests on, behind its node's proxy.

    python peer_ray.py PORT ORIGIN_PORT FOLDER

Run by an interpreter that has Ray (gateway_peers.py); ends at SIGTERM with all of Ray's processes.
"""

import signal
import sys

import aiohttp
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

MAX_CONNECTIONS = 256


@serve.deployment(
    num_replicas=1, max_ongoing_requests=MAX_CONNECTIONS, ray_actor_options={"num_cpus": 0}
)
class Peer:
    """Passes a body on; streams as it comes."""

    def __init__(self, origin: int) -> None:
        self.origin = f"http://127.0.0.1:{origin}"
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, request: Request) -> Response:
        if self.session is None:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
            self.session = aiohttp.ClientSession(connector=connector)
        url, body = f"{self.origin}{request.url.path}", await request.body()
        if request.url.path == "/stream":
            headers = {name: request.headers[name] for name in ("x-count", "x-every-us")}
            answer = await self.session.post(url, data=body, headers=headers)
            return StreamingResponse(answer.content.iter_any(), media_type="text/event-stream")
        async with self.session.post(url, data=body) as answer:
            return Response(await answer.read(), answer.status, media_type=answer.content_type)


def main(port: int, origin: int, folder: str) -> None:
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
        object_store_memory=128 * 1024 * 1024,
        log_to_driver=False,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Peer.bind(origin), name="bench", route_prefix="/")
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
