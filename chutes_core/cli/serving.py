"""The socket of a chute that is served on this machine, and the server around it.

Invariant: the address is a loopback one unless another is asked for.
"""

import contextlib
import socket
from typing import TYPE_CHECKING

from chutes_core.base.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from chutes_core.sdk.chute import Chute


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Return a listening socket; ``option`` is what names the port.

    Raises:
        Unavailable: ``port_taken``.
    """
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise Unavailable(
            "port_taken", f"cannot listen on {host}:{port}: {error}", hint=f"try {option} 0"
        ) from error


def require_server() -> None:
    """Check that there is something to serve with.

    Raises:
        Invalid: ``uvicorn_missing``.
    """
    try:
        import uvicorn  # noqa: F401 - whether it can be imported is the question
    except ImportError as error:
        raise Invalid(
            "uvicorn_missing",
            "serving a chute locally needs uvicorn",
            hint='pip install "uvicorn>=0.54,<1"',
        ) from error


def serve_chute(chute: "Chute", listener: socket.socket, *, debug: bool) -> None:
    """Run the hooks and serve the cords until a signal.

    Raises:
        Invalid: ``startup_failed``.
    """
    import uvicorn

    config = uvicorn.Config(
        chute, lifespan="on", log_level="debug" if debug else "warning", access_log=debug
    )
    server = uvicorn.Server(config)
    with contextlib.suppress(SystemExit):  # uvicorn's own exit code would mean "unreachable"
        server.run(sockets=[listener])
    if not server.started:
        raise Invalid("startup_failed", "a start-up hook failed", hint="see the traceback above")
