"""Sets the validator's weights: once an epoch, decided from records, never twice in a rate window.

The last step of the proof path: score -> vector -> **weights** -> chain. `WeightSetter.run_once` is
the one service call of a loop; each call looks at the chain and the store, and does at most one
thing. Invariants: the intent is stored before anything is sent; an epoch in which the chain shows
weights of ours is never written again, whoever restarted in between (the chain's last update is the
truth, the store only remembers); a weights version newer than this software knows sends nothing.

An epoch is named by the block at which it began. Weights are sent in its last part, so that they
count for the most work and take effect at its end.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

from chutes_core.base.errors import ChainError, ChutesError, Conflict
from chutes_core.chain.extrinsics import Receipt
from chutes_core.chain.metagraph import Metagraph
from chutes_core.chain.subnet import Subnet
from chutes_core.validator.scoring.evidence import build_evidence
from chutes_core.validator.scoring.outcomes import (
    Alarm,
    Skipped,
    Submitted,
    Waiting,
    WeightOutcome,
    failed,
    told,
)
from chutes_core.validator.scoring.score import Work, score
from chutes_core.validator.scoring.vector import to_weights

__all__ = [
    "KNOWN_WEIGHTS_VERSION",
    "Alarm",
    "EpochStore",
    "Skipped",
    "Submitted",
    "Waiting",
    "WeightChain",
    "WeightOutcome",
    "WeightSetter",
    "WorkSource",
    "to_weights",
]

KNOWN_WEIGHTS_VERSION = 1
"""The newest weights version (WeightsVersionKey of the subnet) whose rules this software has."""


class EpochStore(Protocol):
    """What is remembered of epochs; validator/store's `epochs` has this shape."""

    def last_submitted_epoch(self) -> int | None:
        """Return the newest epoch whose weights are known to be on the chain, or None."""
        ...

    def record_intent(self, epoch: int, weights: Mapping[int, int], *, at_s: int) -> None:
        """Store what is about to be sent; a failed try of the same epoch is replaced."""
        ...

    def record_result(
        self, epoch: int, *, extrinsic_hash: str, block_number: int, block_hash: str
    ) -> None:
        """Store in which finalized block the epoch's extrinsic succeeded.

        Raises:
            Conflict: ``no_intent``.
        """
        ...

    def record_failure(self, epoch: int, *, error: str) -> None:
        """Store why the epoch's weights did not get onto the chain."""
        ...

    def put_evidence(self, epoch: int, evidence: str) -> None:
        """Keep the record for `GET /evidence/{epoch}`; a later one of the epoch replaces it."""
        ...


class WorkSource(Protocol):
    """Who knows the work: the store, through the composition root."""

    def work(self, now_us: int, block: int, block_ms: int) -> Work:
        """Return the spans and paid calls of the last seven days and the TAO/USD rate."""
        ...


class WeightChain(Protocol):
    """The part of chain.client.ChainClient that sets weights."""

    def metagraph(self) -> Metagraph:
        """Return the finalized metagraph."""
        ...

    def subnet(self) -> Subnet:
        """Return the finalized parameters."""
        ...

    def set_weights(
        self,
        hotkey: Any,
        weights: Mapping[int, int],
        version_key: int,
        *,
        intent_id: str | None = None,
    ) -> Receipt:
        """Send the vector and wait for finality; what bears ``intent_id`` is sent once."""
        ...

    def weights_receipt(self, hotkey_ss58: str, block_number: int) -> Receipt | None:
        """Return the receipt of weights that the hotkey set in a block, if it did."""
        ...


class WeightSetter:
    """Decides and sends; one instance a validator, called by one loop.

    Args:
        chain: the chain.
        hotkey: the validator's keypair.
        store: remembers epochs.
        source: knows the work.
        lead_blocks: how long before an epoch's end the weights are sent; None takes a quarter of
            the tempo, at least ten blocks.
        known_version: newest weights version that this software knows.
    """

    def __init__(
        self,
        chain: WeightChain,
        hotkey: Any,
        store: EpochStore,
        source: WorkSource,
        *,
        lead_blocks: int | None = None,
        known_version: int = KNOWN_WEIGHTS_VERSION,
    ) -> None:
        self._chain = chain
        self._hotkey = hotkey
        self._store = store
        self._source = source
        self._lead_blocks = lead_blocks
        self._known_version = known_version
        self._found_on_chain: int | None = None

    def run_once(self, now_us: int) -> WeightOutcome:
        """Do what is due now and return what was done.

        Args:
            now_us: Unix time in microseconds.

        Raises:
            Unavailable: the chain could not be read; nothing was sent.
        """
        subnet = self._chain.subnet()
        epoch = subnet.last_epoch_block
        if subnet.weights_version > self._known_version:
            return told(
                Alarm(
                    epoch,
                    "weights_version_newer",
                    f"the subnet asks for weights version {subnet.weights_version}; "
                    f"this software knows {self._known_version}",
                    "update the validator's software; no weights are sent until then",
                )
            )
        metagraph = self._chain.metagraph()
        own = metagraph.by_hotkey(self._hotkey.ss58_address)
        if own is None:
            return told(
                Alarm(
                    epoch,
                    "not_registered",
                    "the validator's hotkey is not registered on the subnet",
                    "register it where the coldkey is: scripts/register.py",
                )
            )
        registering = own.last_update == own.registered_at_block  # it counts as an update
        waiting = self._not_due(subnet, own.last_update, set_before=not registering)
        if waiting is not None:
            return waiting
        return told(self._submit(now_us, subnet, metagraph, own.uid))

    def _not_due(self, subnet: Subnet, last_update: int, *, set_before: bool) -> Waiting | None:
        epoch = subnet.last_epoch_block
        left = max(0, (subnet.next_epoch_block or subnet.block) - subnet.block)
        if self._store.last_submitted_epoch() == epoch:
            return Waiting(epoch, "done", left)
        if set_before and last_update >= epoch:
            self._remember(epoch, last_update)
            return Waiting(epoch, "done", left)
        since = subnet.block - last_update
        if last_update and since < subnet.weights_rate_limit:
            return Waiting(epoch, "rate_limited", subnet.weights_rate_limit - since)
        lead = self._lead_blocks
        if lead is None:
            lead = max(10, subnet.tempo // 4)
        if left > lead:
            return Waiting(epoch, "early", left - lead)
        return None

    def _remember(self, epoch: int, block_number: int) -> None:
        """Complete the record of weights that were sent before a restart, once a process."""
        if self._found_on_chain == epoch:
            return
        # ChainError: the node has discarded that block; Conflict: no intent of ours, so a twin of
        # this validator sent them. Either way the epoch is done, and only the record lacks its hash
        with contextlib.suppress(ChainError, Conflict):
            receipt = self._chain.weights_receipt(self._hotkey.ss58_address, block_number)
            if receipt is not None:
                self._store.record_result(
                    epoch,
                    extrinsic_hash=receipt.extrinsic_hash,
                    block_number=receipt.block_number,
                    block_hash=receipt.block_hash,
                )
        self._found_on_chain = epoch

    def _submit(
        self, now_us: int, subnet: Subnet, metagraph: Metagraph, own_uid: int
    ) -> WeightOutcome:
        epoch, version_key = subnet.last_epoch_block, subnet.weights_version
        try:
            work = self._source.work(now_us, subnet.block, subnet.block_ms)
            scores = score(work)
            weights = to_weights(scores, metagraph, subnet, own_uid)
            record = build_evidence(epoch, work, scores, weights, version_key)
        except ChutesError as error:
            return failed(epoch, error)
        self._store.put_evidence(epoch, record.text)
        self._store.record_intent(epoch, weights, at_s=now_us // 1_000_000)
        try:
            receipt = self._chain.set_weights(
                self._hotkey, weights, version_key, intent_id=f"weights:{subnet.netuid}:{epoch}"
            )
        except ChutesError as error:
            self._store.record_failure(epoch, error=f"{error.code}: {error.message}")
            return failed(epoch, error)
        self._store.record_result(
            epoch,
            extrinsic_hash=receipt.extrinsic_hash,
            block_number=receipt.block_number,
            block_hash=receipt.block_hash,
        )
        return Submitted(epoch, weights, receipt, record)
