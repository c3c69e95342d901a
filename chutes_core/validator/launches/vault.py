"""The secrets of launches at rest: sealed with the validator's master key, bound to their launch.

Invariant: neither a ticket, a launch key nor a root ever reaches the store in the clear, and a
record moved to another launch does not open.
"""

import os
import secrets
from pathlib import Path

from chutes_core.base.errors import Invalid
from chutes_core.wire.sealing import KEY_BYTES, open_at_rest, seal_at_rest


class Vault:
    """Seals and opens launch secrets."""

    def __init__(self, master: bytes) -> None:
        self._master = master

    @classmethod
    def open(cls, path: Path) -> "Vault":
        """Read the master key file, or create it (0600) on the first start.

        Raises:
            Invalid: the file is not a master key; it is never overwritten.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            master = path.read_bytes()
        else:
            master = secrets.token_bytes(KEY_BYTES)
            with os.fdopen(descriptor, "wb") as file:
                file.write(master)
                file.flush()
                os.fsync(file.fileno())
        if len(master) != KEY_BYTES:
            raise Invalid(
                "bad_master_key",
                f"{path} is not a master key of {KEY_BYTES} bytes",
                hint="restore it from the backup; without it no running instance can be reached",
            )
        return cls(master)

    def seal(self, launch_id: str, kind: str, plain: bytes) -> bytes:
        """Seal one secret of one launch; ``kind`` is ticket, key or root."""
        return seal_at_rest(self._master, plain, purpose=f"{kind}:{launch_id}")

    def reveal(self, launch_id: str, kind: str, sealed: bytes) -> bytes:
        """Open what `seal` made.

        Raises:
            ProtocolError: altered, or of another launch or kind.
        """
        return open_at_rest(self._master, sealed, purpose=f"{kind}:{launch_id}")
