"""Rows of reports and logos. Invariant: an invocation is reported once, a logo never changes."""

import sqlite3

from chutes_core.validator.domain.extras import Logo, Report
from chutes_core.validator.store.connection import Connection


class ReportRows:
    """Reports by invocation and by chute."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, report: Report) -> bool:
        """Keep a report; False where the invocation was reported before."""
        return self._db.insert(
            "reports",
            {
                "invocation_id": report.invocation_id,
                "user_id": report.user_id,
                "chute_id": report.chute_id,
                "launch_id": report.launch_id,
                "reason": report.reason,
                "at_s": report.at_s,
            },
            known="keep",
        )

    def of_chute(self, chute_id: str) -> tuple[Report, ...]:
        """Return a chute's reports, newest first."""
        rows = self._db.all(
            "SELECT * FROM reports WHERE chute_id=? ORDER BY at_s DESC, invocation_id", (chute_id,)
        )
        return tuple(map(_report, rows))


class LogoRows:
    """Logos by id, and which image or chute shows which."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, logo: Logo) -> None:
        """Keep a new logo."""
        self._db.insert(
            "logos",
            {
                "logo_id": logo.logo_id,
                "user_id": logo.user_id,
                "sha256": logo.sha256,
                "content_type": logo.content_type,
                "created_at_s": logo.created_at_s,
            },
        )

    def get(self, logo_id: str) -> Logo | None:
        """Return a logo, or None."""
        row = self._db.one("SELECT * FROM logos WHERE logo_id=?", (logo_id,))
        return None if row is None else _logo(row)

    def count_of(self, user_id: str) -> int:
        """Return how many logos a user has."""
        return self._db.number("SELECT count(*) FROM logos WHERE user_id=?", (user_id,))

    def blob_in_use(self, sha256: str) -> bool:
        """Tell whether any logo's bytes are this blob."""
        return self._db.number("SELECT count(*) FROM logos WHERE sha256=?", (sha256,)) > 0

    def show_on(self, object_id: str, logo_id: str) -> None:
        """Let an image or chute (by id) show a logo."""
        row = {"object_id": object_id, "logo_id": logo_id}
        self._db.insert("logo_uses", row, known="replace")

    def shown_on(self, object_id: str) -> str | None:
        """Return the id of the logo that an image or chute shows, or None."""
        row = self._db.one("SELECT logo_id FROM logo_uses WHERE object_id=?", (object_id,))
        return None if row is None else str(row["logo_id"])


def _report(row: sqlite3.Row) -> Report:
    return Report(
        invocation_id=row["invocation_id"],
        user_id=row["user_id"],
        chute_id=row["chute_id"],
        launch_id=row["launch_id"],
        reason=row["reason"],
        at_s=row["at_s"],
    )


def _logo(row: sqlite3.Row) -> Logo:
    return Logo(
        logo_id=row["logo_id"],
        user_id=row["user_id"],
        sha256=row["sha256"],
        content_type=row["content_type"],
        created_at_s=row["created_at_s"],
    )
