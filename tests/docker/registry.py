"""A registry of images over plain HTTP on this host, which can fail in the ways registries do.

Source of the protocol: Docker Registry HTTP API V2, image manifest V2 schema 2.
"""

import contextlib
import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """One image of one layer under every name; ``answer`` may change what is sent.

    Args:
        layer: an uncompressed tar file.
    """

    def __init__(self, layer):
        packed = gzip.compress(layer, 1, mtime=0)
        rootfs = {"type": "layers", "diff_ids": [digest_of(layer)]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        self.layer, self.config = digest_of(packed), digest_of(config)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": {"mediaType": _CONFIG, "size": len(config), "digest": self.config},
                "layers": [{"mediaType": _LAYER, "size": len(packed), "digest": self.layer}],
            }
        ).encode()
        self.blobs = {self.layer: packed, self.config: config}
        self.manifest = manifest
        self.cut = set()  # digests of blobs whose transfer breaks off half-way
        self.port = 0

    @property
    def name(self):
        """Return the image's name for an engine."""
        return f"127.0.0.1:{self.port}/tests/image:1"

    @contextlib.contextmanager
    def serving(self):
        """Serve within the block."""
        server = _Server(("127.0.0.1", 0), self._handler())
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self):
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                *_, kind, last = self.path.split("/")
                if self.path == "/v2/":
                    self._send(b"{}", "application/json")
                elif kind == "manifests" and registry.manifest is not None:
                    self._send(registry.manifest, _MANIFEST)
                elif kind == "blobs" and last in registry.blobs:
                    self._send(registry.blobs[last], "application/octet-stream", last)
                else:
                    error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
                    self._send(
                        json.dumps({"errors": [error]}).encode(), "application/json", code=404
                    )

            do_HEAD = do_GET

            def _send(self, data, kind, digest=None, code=200):
                self.send_response(code)
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if kind == _MANIFEST:
                    self.send_header("Docker-Content-Digest", digest_of(data))
                self.end_headers()
                if self.command == "HEAD":
                    return
                cut = digest in registry.cut
                with contextlib.suppress(OSError):
                    self.wfile.write(data[: len(data) // 2] if cut else data)
                self.close_connection = cut

            def log_message(self, *_):
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Say nothing: an engine that hangs up is what the tests are about."""
