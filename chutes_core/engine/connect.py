"""Finding a Docker engine and making sure that it can be used.

Path: the start of a validator that builds and of a miner that runs containers. Invariant: what is
returned has answered a ping and speaks an API that this room was written for; a failure says why
and what to do about it.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import docker
import docker.errors
import requests

from chutes_core.base.errors import Unavailable

DEFAULT_HOST = "unix:///var/run/docker.sock"
MIN_API = (1, 41)  # engine 20.10: what the limits of builds and containers were tried on
PING_TIMEOUT_S = 5
CALL_TIMEOUT_S = 60
MAX_SOCKET_PATH = 107  # bytes of sockaddr_un.sun_path, less its NUL

Engine = docker.DockerClient
"""A live engine, for rooms that hold one and never import the SDK."""


def connect(
    docker_host: str | None = None, *, timeout_s: int = CALL_TIMEOUT_S
) -> docker.DockerClient:
    """Return a client of a live engine.

    Args:
        docker_host: where it listens (``unix://…``, ``tcp://…``, ``ssh://…``); None reads
            DOCKER_HOST, and without that takes the usual socket.
        timeout_s: longest wait for the answer to one call.

    Raises:
        Unavailable: ``engine_socket_missing``, ``engine_permission_denied``,
            ``engine_unreachable``, ``engine_too_old``, ``bad_docker_host``.
    """
    host = docker_host or host_of(os.environ)
    _check_socket(host)
    # The first answer must come quickly; a call on a busy engine may take its time.
    try:
        client = docker.DockerClient(base_url=host, version="auto", timeout=PING_TIMEOUT_S)
        client.ping()
    except docker.errors.TLSParameterError as error:
        raise Unavailable("bad_docker_host", f"{host}: {error}") from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise _unreachable(host, error) from error
    api = client.api
    if tuple(int(part) for part in api.api_version.split(".")) < MIN_API:
        client.close()
        wanted = ".".join(str(part) for part in MIN_API)
        raise Unavailable(
            "engine_too_old",
            f"the engine at {host} speaks API {api.api_version}; {wanted} is needed",
            hint="update the engine to 20.10 or later",
        )
    api.timeout = timeout_s
    return client


def host_of(environ: Mapping[str, str]) -> str:
    """Return where the environment says that the engine listens."""
    return environ.get("DOCKER_HOST") or DEFAULT_HOST


def _check_socket(host: str) -> None:
    if not host.startswith("unix://"):
        if urlsplit(host).scheme not in ("tcp", "http", "https", "ssh", "npipe"):
            raise Unavailable(
                "bad_docker_host", f"{host!r} names no engine", hint="unix:///var/run/docker.sock"
            )
        return
    path = Path("/" + host.removeprefix("unix://").lstrip("/"))
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise Unavailable(
            "bad_docker_host",
            f"the path of the socket {path} is over {MAX_SOCKET_PATH} bytes long",
            hint="start the engine with a socket in a shorter path",
        )
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError as error:
        raise Unavailable(
            "engine_socket_missing",
            f"no Docker engine listens on {path}",
            hint="install and start one (apt-get install docker.io), or set DOCKER_HOST",
        ) from error
    except PermissionError as error:
        raise _no_permission(host) from error
    if not is_socket:
        raise Unavailable("bad_docker_host", f"{path} is no socket", hint="set DOCKER_HOST")
    if not os.access(path, os.R_OK | os.W_OK):
        raise _no_permission(host)


def _no_permission(host: str) -> Unavailable:
    return Unavailable(
        "engine_permission_denied",
        f"this user may not use the engine at {host}",
        hint="add the user to the group docker and log in anew, or run as root",
    )


def _unreachable(host: str, error: Exception) -> Unavailable:
    text = str(error)
    if "Permission denied" in text:
        return _no_permission(host)
    return Unavailable(
        "engine_unreachable",
        f"the engine at {host} does not answer: {text[:300]}",
        hint="is dockerd running? look at its log",
    )
