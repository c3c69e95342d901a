"""Rows of chutes, of all their versions, and of whom they are shared with.

Invariant: `chutes` holds the current version only, `chute_versions` every version that ever was;
a deleted chute keeps its rows and gives its slug free.
"""

import json
import sqlite3
from dataclasses import asdict, dataclass

from chutes_core.validator.domain.chutes import Chute, Cord, Selector
from chutes_core.validator.store.connection import Connection, Value
from chutes_core.validator.store.jobs import specs, specs_text


@dataclass(frozen=True)
class ChuteVersion:
    """One version that was deployed, whether it is current or not.

    ``cords`` is None, and ``concurrency`` 0, for what was deployed before they were kept.
    """

    chute_id: str
    version: str
    image_id: str
    filename: str
    ref_str: str
    code: str
    created_at_s: int
    cords: tuple[Cord, ...] | None = None
    concurrency: int = 0


class ChuteRows:
    """Chutes by id, name and slug."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def save(self, chute: Chute) -> None:
        """Keep a chute and its version; an earlier version of the same chute is superseded.

        Raises:
            Conflict: ``constraint`` where another live chute has the slug.
        """
        row = _row(chute)
        columns = [name for name in row if name != "chute_id"]
        with self._db.transaction():
            if not self._db.update(
                "chutes", {name: row[name] for name in columns}, "chute_id=?", (chute.chute_id,)
            ):
                self._db.insert("chutes", row)
            version = _version_row(chute)
            if not self._db.insert("chute_versions", version, known="keep"):
                kept = {name: version[name] for name in ("cords", "concurrency")}
                where = "chute_id=? AND version=?"
                self._db.update("chute_versions", kept, where, (chute.chute_id, chute.version))

    def get(self, chute_id: str) -> Chute | None:
        """Return the live chute with this id, or None."""
        return self._one(
            "SELECT * FROM chutes WHERE chute_id=? AND deleted_at_s IS NULL", (chute_id,)
        )

    def get_any(self, chute_id: str) -> Chute | None:
        """Return the chute with this id, deleted or not, or None."""
        return self._one("SELECT * FROM chutes WHERE chute_id=?", (chute_id,))

    def by_name(self, username: str, name: str) -> Chute | None:
        """Return the live chute of a user with this name (case does not matter), or None."""
        return self._one(
            "SELECT * FROM chutes WHERE username=? AND lower(name)=lower(?)"
            " AND deleted_at_s IS NULL",
            (username, name),
        )

    def by_slug(self, slug: str) -> Chute | None:
        """Return the live chute that is served under this slug, or None."""
        return self._one("SELECT * FROM chutes WHERE slug=? AND deleted_at_s IS NULL", (slug,))

    def is_named(self, name: str) -> bool:
        """Tell whether a live chute, of whomever, has this name (case does not matter)."""
        sql = (
            "SELECT EXISTS (SELECT 1 FROM chutes"
            " WHERE deleted_at_s IS NULL AND lower(name)=lower(?))"
        )
        return self._db.number(sql, (name,)) == 1

    def all_live(self) -> tuple[Chute, ...]:
        """Return every chute that is not deleted, oldest first."""
        return self._many(
            "SELECT * FROM chutes WHERE deleted_at_s IS NULL ORDER BY created_at_s, chute_id"
        )

    def visible_to(self, user_id: str, *, include_public: bool) -> tuple[Chute, ...]:
        """Return a user's live chutes and those shared with it, newest first; public on request."""
        return self._many(
            "SELECT * FROM chutes WHERE deleted_at_s IS NULL AND (user_id=? OR (? AND public)"
            " OR chute_id IN (SELECT chute_id FROM chute_shares WHERE user_id=?))"
            " ORDER BY created_at_s DESC, chute_id",
            (user_id, int(include_public), user_id),
        )

    def of_image(self, image_id: str) -> tuple[Chute, ...]:
        """Return the live chutes that run on an image."""
        return self._many(
            "SELECT * FROM chutes WHERE image_id=? AND deleted_at_s IS NULL", (image_id,)
        )

    def version(self, chute_id: str, version: str) -> ChuteVersion | None:
        """Return one version of a chute, or None."""
        row = self._db.one(
            "SELECT * FROM chute_versions WHERE chute_id=? AND version=?", (chute_id, version)
        )
        return None if row is None else _version(row)

    def versions(self, chute_id: str) -> tuple[ChuteVersion, ...]:
        """Return all versions of a chute, oldest first."""
        rows = self._db.all(
            "SELECT * FROM chute_versions WHERE chute_id=? ORDER BY created_at_s, rowid",
            (chute_id,),
        )
        return tuple(map(_version, rows))

    def share(self, chute_id: str, user_id: str) -> None:
        """Let another user see and call the chute."""
        row = {"chute_id": chute_id, "user_id": user_id}
        self._db.insert("chute_shares", row, known="keep")

    def unshare(self, chute_id: str, user_id: str) -> None:
        """Take the right back."""
        self._db.change(
            "DELETE FROM chute_shares WHERE chute_id=? AND user_id=?", (chute_id, user_id)
        )

    def delete(self, chute_id: str, at_s: int) -> bool:
        """Mark a chute as deleted and forget its shares; False where it was none."""
        with self._db.transaction():
            where = "chute_id=? AND deleted_at_s IS NULL"
            if not self._db.update("chutes", {"deleted_at_s": at_s}, where, (chute_id,)):
                return False
            self._db.change("DELETE FROM chute_shares WHERE chute_id=?", (chute_id,))
        return True

    def _one(self, sql: str, values: tuple[Value, ...]) -> Chute | None:
        found = self._many(sql, values)
        return found[0] if found else None

    def _many(self, sql: str, values: tuple[Value, ...] = ()) -> tuple[Chute, ...]:
        with self._db.transaction():
            rows = self._db.all(sql, values)
            return tuple(_chute(row, self._shares(row["chute_id"])) for row in rows)

    def _shares(self, chute_id: str) -> frozenset[str]:
        rows = self._db.all("SELECT user_id FROM chute_shares WHERE chute_id=?", (chute_id,))
        return frozenset(row["user_id"] for row in rows)


def _row(chute: Chute) -> dict[str, Value]:
    return {
        "chute_id": chute.chute_id,
        "version": chute.version,
        "user_id": chute.user_id,
        "username": chute.username,
        "name": chute.name,
        "slug": chute.slug,
        "tagline": chute.tagline,
        "readme": chute.readme,
        "public": int(chute.public),
        "standard_template": chute.standard_template,
        "image_id": chute.image_id,
        "filename": chute.filename,
        "ref_str": chute.ref_str,
        "code": chute.code,
        "selector": json.dumps(asdict(chute.selector)),
        "cords": _cords_text(chute.cords),
        "concurrency": chute.concurrency,
        "max_instances": chute.max_instances,
        "scaling_threshold_percent": chute.scaling_threshold_percent,
        "shutdown_after_s": chute.shutdown_after_s,
        "created_at_s": chute.created_at_s,
        "updated_at_s": chute.updated_at_s,
        "deleted_at_s": chute.deleted_at_s,
        "allow_external_egress": int(chute.allow_external_egress),
        "jobs": specs_text(chute.jobs),
    }


def _chute(row: sqlite3.Row, shared_with: frozenset[str]) -> Chute:
    return Chute(
        chute_id=row["chute_id"],
        version=row["version"],
        user_id=row["user_id"],
        username=row["username"],
        name=row["name"],
        slug=row["slug"],
        tagline=row["tagline"],
        readme=row["readme"],
        public=bool(row["public"]),
        standard_template=row["standard_template"],
        image_id=row["image_id"],
        filename=row["filename"],
        ref_str=row["ref_str"],
        code=row["code"],
        selector=_selector(row["selector"]),
        cords=_cords(row["cords"]),
        concurrency=row["concurrency"],
        max_instances=row["max_instances"],
        scaling_threshold_percent=row["scaling_threshold_percent"],
        shutdown_after_s=row["shutdown_after_s"],
        created_at_s=row["created_at_s"],
        updated_at_s=row["updated_at_s"],
        shared_with=shared_with,
        deleted_at_s=row["deleted_at_s"],
        allow_external_egress=bool(row["allow_external_egress"]),
        jobs=specs(row["jobs"]),
    )


def _selector(text: str) -> Selector:
    fields = json.loads(text)
    include = fields.pop("include")
    return Selector(
        include=None if include is None else tuple(include),
        exclude=tuple(fields.pop("exclude")),
        **fields,
    )


def _version_row(chute: Chute) -> dict[str, Value]:
    return {
        "chute_id": chute.chute_id,
        "version": chute.version,
        "image_id": chute.image_id,
        "filename": chute.filename,
        "ref_str": chute.ref_str,
        "code": chute.code,
        "created_at_s": chute.updated_at_s,
        "cords": _cords_text(chute.cords),
        "concurrency": chute.concurrency,
    }


def _cords_text(cords: tuple[Cord, ...]) -> str:
    return json.dumps([asdict(cord) for cord in cords])


def _cords(text: str) -> tuple[Cord, ...]:
    return tuple(Cord(**cord) for cord in json.loads(text))


def _version(row: sqlite3.Row) -> ChuteVersion:
    return ChuteVersion(
        chute_id=row["chute_id"],
        version=row["version"],
        image_id=row["image_id"],
        filename=row["filename"],
        ref_str=row["ref_str"],
        code=row["code"],
        created_at_s=row["created_at_s"],
        cords=_cords(row["cords"]) if row["cords"] else None,
        concurrency=row["concurrency"],
    )
