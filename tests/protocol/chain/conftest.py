"""A devnet for this folder, and a TCP relay before it whose connections a test can cut."""

import contextlib
import socket
import sys
import threading
from pathlib import Path

import pytest
from bittensor_core import Keypair

from chutes_core.chain.client import ChainClient
from chutes_core.devnet.launch import DevnetProcess

sys.path.insert(0, str(Path(__file__).parent))  # for money_house

BLOCK_SECONDS = 0.1


@pytest.fixture(scope="session", autouse=True)
def runtime_cache(tmp_path_factory):
    """Keep the SDK's cache of metadata out of the home directory."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runtime-cache")
        patch.setenv("BITTENSOR_RUNTIME_CACHE_DIR", str(folder))
        yield


@pytest.fixture(scope="session")
def devnet():
    """One running devnet with fast blocks."""
    with DevnetProcess(block_seconds=BLOCK_SECONDS, tempo=20) as running:
        yield running


@pytest.fixture
def client(devnet):
    """A client of the devnet."""
    with ChainClient.connect(devnet.url, devnet.netuid) as connected:
        yield connected


@pytest.fixture(scope="session")
def key():
    """Return the keypair of a development URI."""
    return Keypair.create_from_uri


def address(url):
    """Return host and port of a node's URL."""
    host, port = url.removeprefix("ws://").split(":")
    return host, int(port)


class Relay:
    """Carries bytes to `upstream`; `cut` drops every connection, `closed` refuses new ones."""

    def __init__(self, upstream):
        self.upstream = upstream
        self._sockets = []
        self.closed = False
        self.refused = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if self.closed:
                self.refused += 1
                near.close()
                continue
            far = socket.create_connection(address(self.upstream))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def _carry(source, sink):
        try:
            while data := source.recv(65_536):
                sink.sendall(data)
        except OSError:
            pass  # cut
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):  # closing alone wakes no other thread's recv
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def cut(self):
        """Drop every open connection."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):  # closed already
                each.shutdown(socket.SHUT_RDWR)

    def stop(self):
        """Stop listening and drop everything."""
        self._server.close()
        self.cut()


@pytest.fixture
def relay(devnet):
    """A relay before the devnet."""
    running = Relay(devnet.url)
    yield running
    running.stop()
