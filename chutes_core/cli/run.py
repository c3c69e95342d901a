"""`chutes run module:chute --dev`: serve a chute on this machine, as the runner would.

Start-up hooks run first; with CHUTES_DEV_URL=http://host:port other Python code calls this chute
instead of the deployed one. Invariant: nothing is attested or metered here, and the address is a
loopback one unless another is asked for.
"""

import contextlib
import json
import os
import socket

import click

from chutes_core.base.errors import Invalid, Unavailable
from chutes_core.cli.options import json_option
from chutes_core.sdk.loader import load_chute


@click.command()
@click.argument("chute_ref", metavar="MODULE:CHUTE")
@click.option("--dev", is_flag=True, help="Serve it locally, for development.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, help="0 for any free one.")
@click.option("--debug", is_flag=True, help="Log every request.")
@json_option
def run(chute_ref: str, dev: bool, host: str, port: int, debug: bool, as_json: bool) -> None:
    """Serve a chute on this machine."""
    if not dev:
        raise Invalid(
            "dev_only",
            "a chute outside an attested instance runs for development only",
            hint="add --dev",
        )
    try:
        import uvicorn
    except ImportError as error:
        raise Invalid(
            "uvicorn_missing",
            "serving a chute locally needs uvicorn",
            hint='pip install "uvicorn>=0.54,<1"',
        ) from error
    os.environ["CHUTES_EXECUTION_CONTEXT"] = "REMOTE"
    chute = load_chute(chute_ref)
    listener = _listen(host, port)
    address = f"http://{host}:{listener.getsockname()[1]}"
    paths = sorted({path for c in chute.cords for path in (c.path, c.public_api_path) if path})
    if as_json:
        click.echo(json.dumps({"url": address, "paths": paths}))
    else:
        click.echo(f"serving {chute.name} at {address}: {' '.join(paths)}")
    config = uvicorn.Config(
        chute, lifespan="on", log_level="debug" if debug else "warning", access_log=debug
    )
    server = uvicorn.Server(config)
    with contextlib.suppress(SystemExit):  # uvicorn's own exit code would mean "unreachable"
        server.run(sockets=[listener])
    if not server.started:
        raise Invalid("startup_failed", "a start-up hook failed", hint="see the traceback above")


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise Unavailable(
            "port_taken", f"cannot listen on {host}:{port}: {error}", hint="try --port 0"
        ) from error
