"""Receipts: the validator's signed word on one call, checked by its payer and its miner alike.

A batch is what the validator settles at once of one gateway's records. Its calls are the leaves of
a hash tree (RFC 6962, 2.1: leaves and nodes are hashed with different first bytes); the hotkey
signs the root with the batch's place, so one signature covers up to a thousand calls. A receipt is
one call, its path to the root, and the signature: whoever holds it checks it offline.

Invariants: what is hashed is canonical JSON (sorted keys, no spaces, ASCII) of integers and texts;
a receipt that verifies says exactly what was settled, and a call has one place in one batch. No API
key's id, no address and nothing that was asked or answered is in one.
"""

import hashlib
import json
from collections.abc import Sequence

from bittensor_core import Keypair
from pydantic import BaseModel, ConfigDict, Field

from chutes_core.base.errors import Unauthenticated
from chutes_core.wire.signing import check_text_signature

FORMAT = "chutes-receipt/1"
MAX_PATH = 32

_Hash = Field(pattern=r"^[0-9a-f]{64}$")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReceiptCall(_Part):
    """One call as it was settled; ``charge_rao`` was taken for ``usage_us`` at ``rao_per_hour``."""

    sequence: int = Field(ge=1)
    invocation_id: str
    user_id: str
    chute_id: str
    launch_id: str
    rate_id: str
    rao_per_hour: int
    hold_rao: int
    charge_rao: int
    free: bool
    started_at_us: int
    usage_us: int
    bytes_in: int
    bytes_out: int
    attempts: int
    status: int
    outcome: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def leaf(self) -> bytes:
        """Return the call's leaf of the batch's tree."""
        text = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"\x00" + text.encode("ascii")).digest()


class ReceiptBatch(_Part):
    """Whose records these are, from which sequence to which, and the root of their tree."""

    genesis_hash: str = Field(max_length=80)
    netuid: int
    validator_hotkey: str = Field(max_length=64)
    worker: str = Field(max_length=64)
    first: int = Field(ge=1)
    last: int = Field(ge=1)
    count: int = Field(ge=1)
    root: str = _Hash

    def text(self) -> str:
        """Return what the validator's hotkey signs."""
        return "|".join((FORMAT, *(str(value) for value in self.model_dump().values())))

    def signed(self, keypair: Keypair) -> str:
        """Return the hotkey's signature in hex."""
        return bytes(keypair.sign(self.text().encode())).hex()


class Receipt(_Part):
    """``position`` counts from 0 in the batch; ``path`` leads from the call's leaf to the root."""

    batch: ReceiptBatch
    signature: str = Field(max_length=132)
    position: int = Field(ge=0)
    path: tuple[str, ...] = Field(max_length=MAX_PATH)
    call: ReceiptCall

    def check(self, validator_hotkey: str | None = None) -> None:
        """Check that the validator signed a batch which holds this call.

        Args:
            validator_hotkey: who must have signed; None takes the one that the receipt names.

        Raises:
            Unauthenticated: ``bad_receipt``, or the signature is none of that hotkey's.
        """
        batch = self.batch
        if validator_hotkey not in (None, batch.validator_hotkey):
            raise _bad("another validator signed it")
        if not batch.first <= self.call.sequence <= batch.last:
            raise _bad("the call does not lie in the batch")
        if _root_by(self.call.leaf(), self.position, batch.count, self.path) != batch.root:
            raise _bad("the call is not what was signed")
        check_text_signature(batch.text(), self.signature, batch.validator_hotkey)


class ReceiptList(BaseModel):
    """Receipts of one instance's calls, oldest first; a page that is not full is the last."""

    receipts: tuple[Receipt, ...]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a tree of at least one leaf."""
    if len(leaves) == 1:
        return leaves[0]
    cut = _cut(len(leaves))
    return _node(root_of(leaves[:cut]), root_of(leaves[cut:]))


def path_of(leaves: Sequence[bytes], position: int) -> tuple[str, ...]:
    """Return the roots beside a leaf's way to the root, in hex, the leaf's neighbour first."""
    if len(leaves) == 1:
        return ()
    cut = _cut(len(leaves))
    if position < cut:
        return (*path_of(leaves[:cut], position), root_of(leaves[cut:]).hex())
    return (*path_of(leaves[cut:], position - cut), root_of(leaves[:cut]).hex())


def _root_by(leaf: bytes, position: int, count: int, path: Sequence[str]) -> str:
    """Return the root that a path leads to; an empty text where it does not fit the tree."""
    turns: list[bool] = []  # from the root down: whether the leaf is to the left
    while count > 1:
        cut = _cut(count)
        left = position < cut
        turns.append(left)
        position, count = (position, cut) if left else (position - cut, count - cut)
    if position or len(turns) != len(path):
        return ""
    value = leaf
    for left, beside in zip(reversed(turns), path, strict=True):
        try:
            other = bytes.fromhex(beside)
        except ValueError:
            return ""
        value = _node(value, other) if left else _node(other, value)
    return value.hex()


def _cut(count: int) -> int:
    """Return the largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _bad(why: str) -> Unauthenticated:
    return Unauthenticated(
        "bad_receipt",
        f"the receipt does not hold: {why}",
        hint="fetch it again from the validator that answered the call",
    )
