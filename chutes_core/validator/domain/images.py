"""Images as a developer published them. Invariant: only a `built` image can be deployed."""

from dataclasses import dataclass
from typing import Literal

ImageState = Literal["pending", "building", "built", "error"]


@dataclass(frozen=True)
class Image:
    """One image; ``bundle_sha256`` names the zip of its Dockerfile and context in the blob room.

    ``image_digest`` and ``archive_sha256`` are empty where no engine built it; else they name the
    built image, and the file among the blobs that miners load it from; with a registry
    ``registry_ref`` (``host/path@sha256:…``) is set instead of the file. ``error`` is what a failed
    build's developer reads: cause, what to do and the last lines; code and hint stand beside it,
    for programs.
    """

    image_id: str
    user_id: str
    username: str
    name: str
    tag: str
    readme: str
    public: bool
    dockerfile: str
    bundle_sha256: str
    bundle_bytes: int
    state: ImageState
    error: str
    created_at_s: int
    build_started_at_s: int | None = None
    build_completed_at_s: int | None = None
    image_digest: str = ""
    archive_sha256: str = ""
    archive_bytes: int = 0
    error_code: str = ""
    error_hint: str = ""
    registry_ref: str = ""

    @property
    def full_name(self) -> str:
        """Return user/name:tag."""
        return f"{self.username}/{self.name}:{self.tag}"

    @property
    def status(self) -> str:
        """Return the status text of the public API."""
        return {
            "pending": "pending build",
            "building": "building",
            "built": "built and pushed",
            "error": f"error: {self.error}",
        }[self.state]
