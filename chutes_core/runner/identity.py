"""Who this instance is: its launch, its X25519 key and the root of its connections.

Path: root 0 is agreed at start; the proof moves it to root 1. Invariant: exactly one generation is
accepted at any moment, and once root 1 exists neither root 0 nor the private key is kept.
"""

from chutes_core.base.errors import Conflict, ProtocolError
from chutes_core.wire.sealing import (
    PROVEN,
    UNPROVEN,
    KeyPair,
    Preamble,
    agree_root,
    rekey_root,
)

_NO_LAUNCH = "00000000-0000-0000-0000-000000000000"


def rehearse() -> None:
    """Do once what an identity does, with keys that are dropped: the first time loads a library."""
    Identity(_NO_LAUNCH, KeyPair.generate().public.hex()).rekey(b"")


class Identity:
    """The launch's keys inside the instance.

    Args:
        launch_id: of the grant.
        validator_public_key: the validator's launch key, hex.

    Raises:
        ProtocolError: ``bad_public_key``.
    """

    def __init__(self, launch_id: str, validator_public_key: str) -> None:
        pair = KeyPair.generate()
        peer = bytes.fromhex(validator_public_key)
        self.launch_id = launch_id
        self.public_key = pair.public.hex()
        self._generation = UNPROVEN
        self._root = agree_root(pair, peer, launch_id=launch_id, validator_public=peer)

    @property
    def proven(self) -> bool:
        """Tell whether the proof has succeeded."""
        return self._generation == PROVEN

    def root_for(self, preamble: Preamble) -> bytes:
        """Return the root under which this connection is sealed.

        Raises:
            ProtocolError: ``other_launch``, or ``wrong_generation``.
        """
        if preamble.launch_id != self.launch_id:
            raise ProtocolError("other_launch", "the preamble names another launch")
        if preamble.generation != self._generation:
            raise ProtocolError("wrong_generation", f"generation {self._generation} is current")
        return self._root

    def rekey(self, answers: bytes) -> None:
        """Move to root 1, once.

        Args:
            answers: A1 | A2 of each GPU, in order.

        Raises:
            Conflict: ``already_proven``.
        """
        if self.proven:
            raise Conflict("already_proven", "this instance has been proven")
        self._root = rekey_root(self._root, answers, launch_id=self.launch_id)
        self._generation = PROVEN
