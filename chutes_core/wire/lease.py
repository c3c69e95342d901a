"""Leases: a miner's signed word that one GPU serves one validator for a range of blocks.

Invariant: two leases of one GPU to different validators that share a block are a conflict, which
any validator can show from the two signatures alone; GPUs in conflict earn nothing.
"""

from bittensor_core import Keypair
from pydantic import BaseModel, ConfigDict, Field, model_validator

from chutes_core.base.errors import Invalid
from chutes_core.wire.signing import check_text_signature

MAX_BLOCK = 2**53
LEASES_PAGE = 5_000
"""How many leases one answer of `GET /leases` holds at most; a shorter one is the last."""
Place = tuple[str, str, str, int, int]
"""A lease's place in a list: miner, GPU, validator, first and last block."""
MAX_LEASE_BLOCKS = 200_000  # four weeks of 12 s blocks; what is longer could never be forgotten


class Lease(BaseModel):
    """One signed lease; blocks are inclusive on both ends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    miner_hotkey: str = Field(max_length=64)
    gpu_uuid: str = Field(max_length=80, pattern=r"^[A-Za-z0-9:._-]+$")
    validator_hotkey: str = Field(max_length=64)
    from_block: int = Field(ge=0, le=MAX_BLOCK)
    to_block: int = Field(ge=0, le=MAX_BLOCK)
    signature: str = Field(max_length=132)

    @model_validator(mode="after")
    def _range(self) -> "Lease":
        if self.to_block < self.from_block:
            raise ValueError("to_block is before from_block")
        if self.to_block - self.from_block >= MAX_LEASE_BLOCKS:
            raise ValueError(f"a lease is at most {MAX_LEASE_BLOCKS} blocks long")
        return self

    @classmethod
    def sign(
        cls,
        keypair: Keypair,
        *,
        gpu_uuid: str,
        validator_hotkey: str,
        from_block: int,
        to_block: int,
    ) -> "Lease":
        """Return a lease signed by the miner's hotkey."""
        text = _text(keypair.ss58_address, gpu_uuid, validator_hotkey, from_block, to_block)
        return cls(
            miner_hotkey=keypair.ss58_address,
            gpu_uuid=gpu_uuid,
            validator_hotkey=validator_hotkey,
            from_block=from_block,
            to_block=to_block,
            signature=bytes(keypair.sign(text.encode())).hex(),
        )

    def check_signature(self) -> None:
        """Check that the miner signed it.

        Raises:
            Unauthenticated: it did not.
        """
        check_text_signature(_text(*self.place), self.signature, self.miner_hotkey)

    @property
    def place(self) -> Place:
        """Where it stands in the order of lists."""
        return (
            self.miner_hotkey,
            self.gpu_uuid,
            self.validator_hotkey,
            self.from_block,
            self.to_block,
        )

    @property
    def cursor(self) -> str:
        """What asks for the leases after this one (`GET /leases?after=`)."""
        return ",".join(map(str, self.place))

    def covers(self, block: int) -> bool:
        """Tell whether the lease holds at ``block``."""
        return self.from_block <= block <= self.to_block

    def conflicts_with(self, other: "Lease") -> bool:
        """Tell whether the two promise one GPU to two validators at once."""
        return (
            self.miner_hotkey == other.miner_hotkey
            and self.gpu_uuid == other.gpu_uuid
            and self.validator_hotkey != other.validator_hotkey
            and self.from_block <= other.to_block
            and other.from_block <= self.to_block
        )


def place_of(cursor: str) -> Place:
    """Return the place that a cursor names.

    Raises:
        Invalid: ``bad_cursor``.
    """
    parts = cursor.split(",")
    blocks = [part for part in parts[3:] if part.isascii() and part.isdigit() and len(part) <= 16]
    if len(parts) != 5 or len(blocks) != 2:
        raise Invalid(
            "bad_cursor",
            "this names no place in the list",
            hint="after= miner,GPU,validator,from_block,to_block of the last lease that was read",
        )
    return parts[0], parts[1], parts[2], int(blocks[0]), int(blocks[1])


def _text(miner: str, gpu: str, validator: str, from_block: int, to_block: int) -> str:
    return f"chutes-lease/1|{miner}|{gpu}|{validator}|{from_block}|{to_block}"
