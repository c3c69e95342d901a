"""The folder between validator and signer: a file a refund in `orders/`, its answer in `reports/`.

Path: billing/refunds -> orders -> signer -> reports -> billing/refunds. Invariants: a file appears
whole (written aside, then renamed) and can be written and read again without harm; the kernel
authenticates it: a file counts only if it is a plain file that the expected user owns, in a folder
that this user owns and nobody else may write to. See docs/adr/0006-signer-spool.md.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from loguru import logger
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chutes_core.base.errors import Forbidden

MAX_BYTES = 16 * 1024
_NAME = re.compile(r"[0-9a-f-]{36}\.json")
_Id = Field(pattern=r"^[0-9a-f-]{36}$")
_Rao = Field(default=0, ge=0, le=2**62)


class Order(BaseModel):
    """What the validator asks the signer to pay (billing.refunds.RefundOrder)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refund_id: str = _Id
    number: int = Field(ge=0, le=2**53)
    deposit_address: str = Field(max_length=64)
    destination_ss58: str = Field(max_length=64)
    amount_rao: int = Field(gt=0, le=2**62)


class Report(BaseModel):
    """What the signer answers (billing.refunds.RefundReport)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refund_id: str = _Id
    outcome: str = Field(pattern="^(waiting|submitted|died|finalized|failed)$")
    extrinsic_hash: str = Field(default="", max_length=80)
    paid_rao: int = _Rao
    fee_rao: int = _Rao
    block_number: int | None = None
    reason: str = Field(default="", max_length=500)


_Record = TypeVar("_Record", Order, Report)


class Spool:
    """One of the two folders, written by one user and read by another.

    Args:
        folder: ``orders`` or ``reports``.
        owner_uid: whose files count.
    """

    def __init__(self, folder: Path, *, owner_uid: int) -> None:
        self._folder = folder
        self._owner_uid = owner_uid

    def prepare(self) -> None:
        """Make the folder, for the user who writes to it; its group may read."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o750)

    def write(self, refund_id: str, record: BaseModel) -> None:
        """Put a record, replacing an earlier one of the refund."""
        path = self._folder / f"{refund_id}.json"
        data = record.model_dump_json().encode()
        if path.exists() and path.read_bytes() == data:
            return
        draft = path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def keep_only(self, refund_ids: set[str]) -> None:
        """Remove the records of all other refunds."""
        for path in self._folder.glob("*.json"):
            if path.stem not in refund_ids:
                path.unlink(missing_ok=True)

    def orders(self) -> tuple[Order, ...]:
        """Return every order, in order of their names.

        Raises:
            Forbidden: ``spool_not_private``: somebody else could have written here.
        """
        return tuple(self._read(Order))

    def reports(self) -> tuple[Report, ...]:
        """Return every report.

        Raises:
            Forbidden: ``spool_not_private``.
        """
        return tuple(self._read(Report))

    def _read(self, kind: type[_Record]) -> Iterator[_Record]:
        if not self._folder.exists():
            return
        self._check(self._folder.lstat(), folder=True)
        for path in sorted(self._folder.iterdir()):
            if not _NAME.fullmatch(path.name):
                continue
            try:
                record = kind.model_validate(self._document(path))
            except FileNotFoundError:
                continue  # its writer removed it meanwhile
            except (ValidationError, ValueError) as error:
                logger.warning(
                    "a spooled file is not what it should be", error=type(error).__name__
                )
                continue
            if path.stem == record.refund_id:
                yield record

    def _document(self, path: Path) -> object:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            self._check(os.fstat(file.fileno()), folder=False)
            return json.loads(file.read(MAX_BYTES))

    def _check(self, found: os.stat_result, *, folder: bool) -> None:
        kind = stat.S_ISDIR if folder else stat.S_ISREG
        others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not kind(found.st_mode) or found.st_uid != self._owner_uid or others_write:
            raise Forbidden(
                "spool_not_private",
                f"something in {self._folder} is not user {self._owner_uid}'s alone to write",
                hint="check owner and mode (0750 for folders, 0640 for files)",
            )
