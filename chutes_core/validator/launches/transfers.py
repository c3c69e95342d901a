"""Where a launch's image comes from: which archive it may fetch, and with which token.

Path: `Launches` puts `image_ref` into a grant; the miner calls GET /launches/{id}/image with the
token; api/routes/transfers asks `Transfers.open` and streams the file. The answer is not signed: it
would have to be whole in memory for that, and the signed grant already holds its SHA-256.

Invariant: a token opens one launch's own image and nothing else, while that launch is open; it is
derived from the launch's ticket, so nothing more is stored; a launch has at most MAX_PER_LAUNCH
transfers at a time, and all launches together MAX_TRANSFERS. An image that went to a registry has
no archive: its grant names it there by digest, with a pass of that registry.
"""

import hashlib
import hmac
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from chutes_core.base.errors import Conflict, Exhausted, NotFound, Unauthenticated
from chutes_core.validator.domain.images import Image
from chutes_core.validator.domain.launches import LaunchState
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.store.database import Store
from chutes_core.wire.control import ImageRef, RuntimeName

MAX_PER_LAUNCH = 2
MAX_TRANSFERS = 32
RETRY_S = 5
_PURPOSE = b"chutes-image/1|"


@dataclass(frozen=True)
class Archive:
    """A file that a miner may read."""

    path: Path
    sha256: str


class Passes(Protocol):
    """Signs what opens one image of a registry."""

    def pull_token(self, reference: str, subject: str) -> str:
        """Return a pass, or an empty one where miners have credentials of their own."""
        ...


def pulled_ref(image: Image, passes: Passes | None, miner_hotkey: str) -> ImageRef:
    """Return where a launch pulls an image that lies in a registry."""
    return ImageRef(
        image_id=image.image_id,
        name=image.full_name,
        kind="docker",
        path="",
        sha256=image.registry_ref.rpartition(":")[2],
        size_bytes=0,
        image_digest=image.image_digest,
        registry_ref=image.registry_ref,
        token=passes.pull_token(image.registry_ref, miner_hotkey) if passes else "",
    )


def image_ref(image: Image, kind: RuntimeName, launch_id: str, ticket: bytes) -> ImageRef:
    """Return where a launch's image comes from, if not from a registry.

    Raises:
        Conflict: ``not_wanted``: there is no built image for that runtime.
    """
    if kind == "process":
        return ImageRef(
            image_id=image.image_id,
            name=image.full_name,
            kind=kind,
            path=f"/miner/images/{image.image_id}/bundle",
            sha256=image.bundle_sha256,
            size_bytes=image.bundle_bytes,
        )
    if not image.archive_sha256:
        raise Conflict(
            "not_wanted",
            "this validator builds no images: it has none for the docker runtime",
            hint="the validator must run with runtime=docker, or the miner with runtime=process",
        )
    return ImageRef(
        image_id=image.image_id,
        name=image.full_name,
        kind=kind,
        path=f"/launches/{launch_id}/image",
        sha256=image.archive_sha256,
        size_bytes=image.archive_bytes,
        image_digest=image.image_digest,
        token=_token(launch_id, ticket),
    )


class Transfers:
    """Archives on their way to miners."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def open(self, launch_id: str, token: str) -> Archive:
        """Return the archive of an open launch's image.

        Raises:
            NotFound: ``no_such_launch``, also once it is gone; ``no_such_image``.
            Unauthenticated: ``bad_launch_token``.
        """
        launch = self._store.launches.get(launch_id)
        if launch is None or launch.state is LaunchState.GONE:
            raise NotFound("no_such_launch", "there is no such open launch")
        sealed = self._store.launches.secrets(launch_id).ticket
        ticket = self._vault.reveal(launch_id, "ticket", sealed)
        if not hmac.compare_digest(_token(launch_id, ticket).encode(), token.encode()):
            raise Unauthenticated(
                "bad_launch_token",
                "the token is not this launch's",
                hint="Authorization: Launch <token of the grant's image>",
            )
        image = self._store.images.get(launch.image_id)
        if image is None or not image.archive_sha256:
            raise NotFound("no_such_image", "the image of this launch has no archive any more")
        return Archive(self._store.blobs.path(image.archive_sha256), image.archive_sha256)

    @contextmanager
    def counted(self, launch_id: str) -> Iterator[None]:
        """Count one transfer while the block runs.

        Raises:
            Exhausted: ``transfers_busy``.
        """
        with self._lock:
            of_launch, of_all = self._running[launch_id], sum(self._running.values())
            if of_launch >= MAX_PER_LAUNCH or of_all >= MAX_TRANSFERS:
                text = "too many transfers of images at once"
                raise Exhausted("transfers_busy", text, retry_after_s=RETRY_S)
            self._running[launch_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[launch_id] -= 1
                if not self._running[launch_id]:
                    del self._running[launch_id]


def _token(launch_id: str, ticket: bytes) -> str:
    return hmac.new(ticket, _PURPOSE + launch_id.encode(), hashlib.sha256).hexdigest()
