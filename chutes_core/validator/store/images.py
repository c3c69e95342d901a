"""Rows of images and of their build logs. Invariant: a build's state moves by compare-and-set."""

import sqlite3
from dataclasses import dataclass
from typing import Literal

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.images import Image, ImageState
from chutes_core.validator.store.connection import Connection, Value

LogType = Literal["stdout", "stderr"]


@dataclass(frozen=True)
class LogLine:
    """One line of a build log; ``line`` counts from 1."""

    line: int
    log_type: LogType
    text: str


@dataclass(frozen=True)
class Made:
    """What a build made: the image's digest, and its archive among the blobs or in a registry."""

    image_digest: str
    archive_sha256: str
    archive_bytes: int
    registry_ref: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a build ended without an image."""

    text: str
    code: str
    hint: str


class ImageRows:
    """Images by id and by full name."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, image: Image) -> None:
        """Keep a new image.

        Raises:
            Conflict: ``image_exists``.
        """
        if not self._db.insert("images", _row(image), known="keep"):
            raise Conflict(
                "image_exists",
                f"the image {image.full_name} exists already",
                hint="choose another tag, or delete the image first",
            )

    def get(self, image_id: str) -> Image | None:
        """Return the image with this id, or None."""
        return _maybe(self._db.one("SELECT * FROM images WHERE image_id=?", (image_id,)))

    def by_name(self, username: str, name: str, tag: str) -> Image | None:
        """Return the image username/name:tag, or None."""
        sql = "SELECT * FROM images WHERE username=? AND name=? AND tag=?"
        return _maybe(self._db.one(sql, (username, name, tag)))

    def visible_to(self, user_id: str, *, include_public: bool) -> tuple[Image, ...]:
        """Return a user's images, with the public ones of others on request, newest first."""
        rows = self._db.all(
            "SELECT * FROM images WHERE user_id=? OR (? AND public)"
            " ORDER BY created_at_s DESC, image_id",
            (user_id, int(include_public)),
        )
        return tuple(map(_image, rows))

    def in_state(self, state: ImageState) -> tuple[Image, ...]:
        """Return the images in a state, oldest first (what the builder has to do)."""
        rows = self._db.all(
            "SELECT * FROM images WHERE state=? ORDER BY created_at_s, image_id", (state,)
        )
        return tuple(map(_image, rows))

    def advance(
        self,
        image_id: str,
        from_state: ImageState,
        to_state: ImageState,
        *,
        at_s: int,
        failed: Failure | None = None,
        made: Made | None = None,
    ) -> Image:
        """Move a build on, stamping its start or its end, and what it made or why it failed.

        Raises:
            Conflict: ``image_moved`` where the image is not in ``from_state``.
        """
        why = failed or Failure("", "", "")
        changes: dict[str, Value] = {
            "state": to_state,
            "error": why.text,
            "error_code": why.code,
            "error_hint": why.hint,
        }
        if to_state == "building":
            changes["build_started_at_s"] = at_s
        if to_state in ("built", "error"):
            changes["build_completed_at_s"] = at_s
        if made is not None:
            changes["image_digest"] = made.image_digest
            changes["archive_sha256"] = made.archive_sha256
            changes["archive_bytes"] = made.archive_bytes
            changes["registry_ref"] = made.registry_ref
        with self._db.transaction():
            where = "image_id=? AND state=?"
            moved = self._db.update("images", changes, where, (image_id, from_state))
            image = self.get(image_id)
            if not moved or image is None:
                raise Conflict("image_moved", f"the image is not {from_state} any more")
        return image

    def delete(self, image_id: str) -> bool:
        """Remove an image and its log; False where there was none."""
        return self._db.change("DELETE FROM images WHERE image_id=?", (image_id,)) > 0

    def blob_in_use(self, sha256: str) -> bool:
        """Tell whether any image names this blob, as its bundle or as its archive."""
        sql = "SELECT count(*) FROM images WHERE bundle_sha256=? OR archive_sha256=?"
        return self._db.number(sql, (sha256, sha256)) > 0

    def leave(self, registry_ref: str, image_id: str) -> None:
        """Note what a deleted image left in a registry."""
        self._db.insert(
            "registry_leftovers", {"registry_ref": registry_ref, "image_id": image_id}, known="keep"
        )

    def left(self) -> tuple[tuple[str, str], ...]:
        """Return what lies in registries for nobody: reference and image id of each."""
        rows = self._db.all("SELECT * FROM registry_leftovers ORDER BY registry_ref")
        return tuple((row["registry_ref"], row["image_id"]) for row in rows)

    def cleared(self, registry_ref: str) -> None:
        """Strike what is gone from the registry, or named by an image again."""
        self._db.change("DELETE FROM registry_leftovers WHERE registry_ref=?", (registry_ref,))

    def append_log(self, image_id: str, log_type: LogType, text: str) -> None:
        """Add one line to the build log."""
        self._db.change(
            "INSERT INTO image_logs(image_id, line, log_type, text) SELECT ?,"
            " coalesce(max(line), 0) + 1, ?, ? FROM image_logs WHERE image_id=?",
            (image_id, log_type, text, image_id),
        )

    def log(self, image_id: str, *, after: int) -> tuple[LogLine, ...]:
        """Return the log's lines after number ``after``."""
        rows = self._db.all(
            "SELECT * FROM image_logs WHERE image_id=? AND line>? ORDER BY line", (image_id, after)
        )
        return tuple(LogLine(row["line"], row["log_type"], row["text"]) for row in rows)


def _row(image: Image) -> dict[str, Value]:
    return {
        "image_id": image.image_id,
        "user_id": image.user_id,
        "username": image.username,
        "name": image.name,
        "tag": image.tag,
        "readme": image.readme,
        "public": int(image.public),
        "dockerfile": image.dockerfile,
        "bundle_sha256": image.bundle_sha256,
        "bundle_bytes": image.bundle_bytes,
        "state": image.state,
        "error": image.error,
        "created_at_s": image.created_at_s,
        "build_started_at_s": image.build_started_at_s,
        "build_completed_at_s": image.build_completed_at_s,
        "image_digest": image.image_digest,
        "archive_sha256": image.archive_sha256,
        "archive_bytes": image.archive_bytes,
        "error_code": image.error_code,
        "error_hint": image.error_hint,
        "registry_ref": image.registry_ref,
    }


def _image(row: sqlite3.Row) -> Image:
    return Image(
        image_id=row["image_id"],
        user_id=row["user_id"],
        username=row["username"],
        name=row["name"],
        tag=row["tag"],
        readme=row["readme"],
        public=bool(row["public"]),
        dockerfile=row["dockerfile"],
        bundle_sha256=row["bundle_sha256"],
        bundle_bytes=row["bundle_bytes"],
        state=row["state"],
        error=row["error"],
        created_at_s=row["created_at_s"],
        build_started_at_s=row["build_started_at_s"],
        build_completed_at_s=row["build_completed_at_s"],
        image_digest=row["image_digest"],
        archive_sha256=row["archive_sha256"],
        archive_bytes=row["archive_bytes"],
        error_code=row["error_code"],
        error_hint=row["error_hint"],
        registry_ref=row["registry_ref"],
    )


def _maybe(row: sqlite3.Row | None) -> Image | None:
    return None if row is None else _image(row)
