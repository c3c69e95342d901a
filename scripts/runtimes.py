"""Which runtime a local network uses: containers where they can be had here, else processes.

Invariant: what is chosen by itself is said with its reason; what was asked for is taken as it is,
and fails by its own error where it cannot work.
"""

import os
import subprocess
from dataclasses import dataclass
from typing import Literal

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.engine import archive
from chutes_core.engine.connect import connect
from chutes_core.engine.failures import explained
from chutes_core.engine.firewall import Firewall
from scripts.localnet import ROOT

RuntimeName = Literal["docker", "process"]
BASE_IMAGE = "parachutes/python:3.12"
BUILT = "chutes-built"
_BASE_TIMEOUT_S = 600
_ADVISE = "; --runtime docker says more"


@dataclass(frozen=True)
class Choice:
    """A runtime, and why it is that one."""

    runtime: RuntimeName
    reason: str


def choose(asked: RuntimeName | None) -> Choice:
    """Return the runtime that was asked for, else docker where engine and firewall answer."""
    if asked is not None:
        return Choice(asked, "as asked")
    try:
        connect(None).close()
        Firewall().check()
    except ChutesError as error:
        return Choice("process", f"{error.message}{_ADVISE}")
    return Choice("docker", "a Docker engine answers and firewall rules can be set")


def ensure_base_image() -> None:
    """Make the base image that the examples name, where the engine lacks it.

    Raises:
        Unavailable: ``base_image_failed`` with the end of the output.
    """
    client = connect(None)
    try:
        with explained("list images"):
            if client.api.images(name=BASE_IMAGE):
                return
    finally:
        client.close()
    done = subprocess.run(
        [str(ROOT / "images" / "build_cpu_base.sh"), BASE_IMAGE],
        capture_output=True,
        text=True,
        timeout=_BASE_TIMEOUT_S,
        env=dict(os.environ),
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable("base_image_failed", (done.stdout + done.stderr).strip()[-2000:])


def forget_built(image_id: str) -> str:
    """Remove a built image from the engine; return its digest, which the engine has no more.

    Raises:
        Unavailable: ``still_there``.
        ChutesError: the engine refuses.
    """
    client = connect(None)
    try:
        with explained("look at a built image"):
            digest = str(client.api.inspect_image(f"{BUILT}:{image_id}")["Id"])
        archive.remove(client, digest)
        if archive.holds(client, digest):
            raise Unavailable("still_there", f"the engine still has {digest}")
    finally:
        client.close()
    return digest


def engine_has(digest: str) -> bool:
    """Tell whether the engine has an image."""
    client = connect(None)
    try:
        return archive.holds(client, digest)
    finally:
        client.close()
