"""Rows of launches and their sealed secrets.

Invariant: a state moves by compare-and-set along the domain's transition table only; a GPU of a
miner stands in at most one open launch (an idle one that proves beside it until it is verified);
secrets (launch key, ticket, root) come in and go out
sealed, and the private key and root are erased when the launch is gone.
"""

import json
import sqlite3
from dataclasses import asdict, dataclass, field, fields

from chutes_core.base.errors import Conflict, NotFound
from chutes_core.validator.domain.launches import (
    ClaimedGpu,
    Launch,
    LaunchState,
    Reason,
    check_transition,
)
from chutes_core.validator.domain.spans import ActiveSpan
from chutes_core.validator.store.connection import Connection, Value

Change = str | int | Reason | None
_FIXED = ("launch_id", "chute_id", "version", "miner_hotkey", "gpu_uuids", "state", "challenged")
_CHANGEABLE = frozenset(item.name for item in fields(Launch) if item.name not in _FIXED)


@dataclass(frozen=True)
class SealedSecrets:
    """What is stored sealed beside a launch; ``root`` is None until the session rekeyed."""

    private_key: bytes = field(repr=False)
    ticket: bytes = field(repr=False)
    root: bytes | None = field(repr=False)


class LaunchRows:
    """Launches by id, miner, chute and time."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, launch: Launch, sealed_private_key: bytes, sealed_ticket: bytes) -> None:
        """Keep a new launch and bind its GPUs to it.

        Raises:
            Conflict: ``gpu_busy`` where a GPU stands in an open launch.
        """
        row = _row(launch)
        row |= {"sealed_private_key": sealed_private_key, "sealed_ticket": sealed_ticket}
        with self._db.transaction():
            self._db.insert("launches", row)
            beside = (gpu.uuid for gpu in launch.challenged if gpu.idle)
            for gpu_uuid in (*launch.gpu_uuids, *beside):
                self._bind(launch, gpu_uuid)

    def get(self, launch_id: str) -> Launch | None:
        """Return one launch, or None."""
        row = self._db.one("SELECT * FROM launches WHERE launch_id=?", (launch_id,))
        return None if row is None else _launch(row)

    def secrets(self, launch_id: str) -> SealedSecrets:
        """Return the sealed secrets of a launch.

        Raises:
            NotFound: ``no_such_launch``.
        """
        row = self._db.one("SELECT * FROM launches WHERE launch_id=?", (launch_id,))
        if row is None:
            raise _missing(launch_id)
        return SealedSecrets(row["sealed_private_key"], row["sealed_ticket"], row["sealed_root"])

    def set_root(self, launch_id: str, sealed_root: bytes) -> None:
        """Keep the sealed root of a launch that is not gone.

        Raises:
            Conflict: ``launch_moved`` where it is gone or never was.
        """
        where = "launch_id=? AND state<>'gone'"
        if not self._db.update("launches", {"sealed_root": sealed_root}, where, (launch_id,)):
            raise Conflict("launch_moved", f"the launch {launch_id} is gone")

    def advance(
        self, launch_id: str, from_state: LaunchState, to_state: LaunchState, **changes: Change
    ) -> Launch:
        """Move a launch to its next state and change other fields with it; returns the result.

        Args:
            launch_id: the launch.
            from_state: the state that the caller believes it is in.
            to_state: the state that it gets.
            changes: fields of Launch that change (deadline_s, reason, active_at_s, gone_at_s, …).

        Raises:
            Conflict: ``bad_transition``, or ``launch_moved`` where it is not in ``from_state``.
        """
        check_transition(from_state, to_state)
        with self._db.transaction():
            launch = self._change(launch_id, from_state, {"state": to_state.value}, changes)
            if to_state is LaunchState.VERIFIED:
                self._release_idle(launch)
            if to_state is LaunchState.GONE:
                self._release(launch_id)
        return launch

    def update(self, launch_id: str, in_state: LaunchState, **changes: Change) -> Launch:
        """Change fields of a launch that stays in its state (lease_until_s, deadline_s, …).

        Raises:
            Conflict: ``launch_moved`` where it is not in ``in_state``.
        """
        with self._db.transaction():
            return self._change(launch_id, in_state, {}, changes)

    def open(self) -> tuple[Launch, ...]:
        """Return every launch that is not gone, oldest first."""
        rows = self._db.all(
            "SELECT * FROM launches WHERE state<>'gone' ORDER BY requested_at_s, launch_id"
        )
        return tuple(map(_launch, rows))

    def open_of_chute(self, chute_id: str) -> tuple[Launch, ...]:
        """Return the launches of a chute that are not gone, oldest first."""
        rows = self._db.all(
            "SELECT * FROM launches WHERE chute_id=? AND state<>'gone'"
            " ORDER BY requested_at_s, launch_id",
            (chute_id,),
        )
        return tuple(map(_launch, rows))

    def last_gone_of(self, chute_id: str, version: str | None = None) -> Launch | None:
        """Return the launch of a chute (and of one version of it) that ended last, or None."""
        row = self._db.one(
            "SELECT * FROM launches WHERE chute_id=? AND state='gone'"
            " AND version=coalesce(?, version)"
            " ORDER BY gone_at_s DESC, requested_at_s DESC LIMIT 1",
            (chute_id, version),
        )
        return None if row is None else _launch(row)

    def last_of(
        self, miner_hotkey: str, chute_id: str, *, since_s: int, limit: int
    ) -> tuple[Launch, ...]:
        """Return a miner's launches of a chute that ended at or after a time, newest first."""
        rows = self._db.all(
            "SELECT * FROM launches WHERE miner_hotkey=? AND gone_at_s>=? AND chute_id=?"
            " ORDER BY gone_at_s DESC, requested_at_s DESC LIMIT ?",
            (miner_hotkey, since_s, chute_id, limit),
        )
        return tuple(map(_launch, rows))

    def by_miner(self, miner_hotkey: str, include_gone_since_s: int) -> tuple[Launch, ...]:
        """Return a miner's open launches and those that ended at or after a time, oldest first."""
        rows = self._db.all(
            "SELECT * FROM launches WHERE miner_hotkey=? AND (gone_at_s IS NULL OR gone_at_s>=?)"
            " ORDER BY requested_at_s, launch_id",
            (miner_hotkey, include_gone_since_s),
        )
        return tuple(map(_launch, rows))

    def busy_gpus(self, miner_hotkey: str) -> dict[str, str]:
        """Return GPU -> launch id of a miner's open launches."""
        rows = self._db.all("SELECT * FROM launch_gpus WHERE miner_hotkey=?", (miner_hotkey,))
        return {row["gpu_uuid"]: row["launch_id"] for row in rows}

    def active_spans(self, from_us: int, to_us: int) -> tuple[ActiveSpan, ...]:
        """Return when instances were active (till gone, draining included) inside [from, to)."""
        rows = self._db.all(
            "SELECT * FROM launches WHERE active_at_s IS NOT NULL AND active_at_s*1000000 < ?"
            " AND (gone_at_s IS NULL OR gone_at_s*1000000 > ?) ORDER BY active_at_s, launch_id",
            (to_us, from_us),
        )
        return tuple(_span(_launch(row), from_us, to_us) for row in rows)

    def _change(
        self,
        launch_id: str,
        in_state: LaunchState,
        columns: dict[str, Value],
        changes: dict[str, Change],
    ) -> Launch:
        unknown = sorted(set(changes) - _CHANGEABLE)
        if unknown:
            raise TypeError(f"these fields of a launch do not change: {unknown}")
        for name, value in changes.items():
            columns[name] = value.value if isinstance(value, Reason) else value
        columns = columns or {"state": in_state.value}
        moved = self._db.update(
            "launches", columns, "launch_id=? AND state=?", (launch_id, in_state.value)
        )
        launch = self.get(launch_id)
        if launch is None or not moved:
            found = "missing" if launch is None else launch.state.value
            raise Conflict(
                "launch_moved", f"the launch is {found}, not {in_state.value}", state=found
            )
        return launch

    def _bind(self, launch: Launch, gpu_uuid: str) -> None:
        row = {
            "miner_hotkey": launch.miner_hotkey,
            "gpu_uuid": gpu_uuid,
            "launch_id": launch.launch_id,
        }
        if not self._db.insert("launch_gpus", row, known="keep"):
            raise Conflict("gpu_busy", f"the GPU {gpu_uuid} stands in an open launch")

    def _release_idle(self, launch: Launch) -> None:
        for gpu in launch.challenged:
            if gpu.idle:
                self._db.change(
                    "DELETE FROM launch_gpus WHERE miner_hotkey=? AND gpu_uuid=? AND launch_id=?",
                    (launch.miner_hotkey, gpu.uuid, launch.launch_id),
                )

    def _release(self, launch_id: str) -> None:
        self._db.change("DELETE FROM launch_gpus WHERE launch_id=?", (launch_id,))
        erased: dict[str, Value] = {"sealed_private_key": b"", "sealed_root": None}
        self._db.update("launches", erased, "launch_id=?", (launch_id,))


def _missing(launch_id: str) -> NotFound:
    return NotFound("no_such_launch", f"there is no launch {launch_id}")


def _span(launch: Launch, from_us: int, to_us: int) -> ActiveSpan:
    assert launch.active_at_s is not None
    end_us = to_us if launch.gone_at_s is None else min(to_us, launch.gone_at_s * 1_000_000)
    return ActiveSpan(launch, max(from_us, launch.active_at_s * 1_000_000), end_us)


def _row(launch: Launch) -> dict[str, Value]:
    return {
        "launch_id": launch.launch_id,
        "chute_id": launch.chute_id,
        "version": launch.version,
        "image_id": launch.image_id,
        "miner_hotkey": launch.miner_hotkey,
        "miner_coldkey": launch.miner_coldkey,
        "registered_at_block": launch.registered_at_block,
        "node_id": launch.node_id,
        "gpu_uuids": json.dumps(launch.gpu_uuids),
        "gpu_class": launch.gpu_class,
        "relay_host": launch.relay_host,
        "relay_port": launch.relay_port,
        "profile": launch.profile,
        "stand_in": int(launch.stand_in),
        "requested_at_s": launch.requested_at_s,
        "deadline_s": launch.deadline_s,
        "state": launch.state.value,
        "reason": launch.reason.value,
        "detail": launch.detail,
        "instance_public_key": launch.instance_public_key,
        "proof_id": launch.proof_id,
        "active_at_s": launch.active_at_s,
        "gone_at_s": launch.gone_at_s,
        "lease_until_s": launch.lease_until_s,
        "challenged": json.dumps([asdict(gpu) for gpu in launch.challenged]),
    }


def _launch(row: sqlite3.Row) -> Launch:
    return Launch(
        launch_id=row["launch_id"],
        chute_id=row["chute_id"],
        version=row["version"],
        image_id=row["image_id"],
        miner_hotkey=row["miner_hotkey"],
        miner_coldkey=row["miner_coldkey"],
        registered_at_block=row["registered_at_block"],
        node_id=row["node_id"],
        gpu_uuids=tuple(json.loads(row["gpu_uuids"])),
        gpu_class=row["gpu_class"],
        relay_host=row["relay_host"],
        relay_port=row["relay_port"],
        profile=row["profile"],
        stand_in=bool(row["stand_in"]),
        requested_at_s=row["requested_at_s"],
        deadline_s=row["deadline_s"],
        state=LaunchState(row["state"]),
        reason=Reason(row["reason"]),
        detail=row["detail"],
        instance_public_key=row["instance_public_key"],
        proof_id=row["proof_id"],
        active_at_s=row["active_at_s"],
        gone_at_s=row["gone_at_s"],
        lease_until_s=row["lease_until_s"],
        challenged=tuple(ClaimedGpu(**gpu) for gpu in json.loads(row["challenged"])),
    )
