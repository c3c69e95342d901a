"""Weights in two steps: commit, then reveal.

Plain commits are revealed by their author in a later epoch. Timelocked commits are sealed to the
drand beacon and cannot be opened offline: they are stored, never revealed. Invariant: a reveal is
applied only if it hashes to a commit whose window is open, and uses it up.
"""

from typing import Any

from chutes_core.devnet.codec import blake2_256
from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.pallets.subtensor import neurons, weights
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.scale import Reader, compact, octets

MAX_UNREVEALED = 10

_NETUID_END = 4  # call index, netuid


def commit_weights(context: Context, origin: Origin, call: Call) -> None:
    """Store the hash of weights to be revealed later; for mechanism 0 where none is named."""
    hotkey, netuid = origin.signed(), int(call.args["netuid"])
    index = _check_commit(context, hotkey, netuid, mechanism=int(call.args.get("mecid", 0)))
    pending = _pending(context, index, hotkey)
    if len(pending) >= MAX_UNREVEALED:
        raise ModuleFailure(PALLET, "TooManyUnrevealedCommits")
    commit = str(call.args["commit_hash"])
    first, last = _window(context, netuid)
    entry = (commit, context.block, first, last)
    context.state.put(PALLET, "WeightCommits", index, hotkey, [*pending, entry])
    _touch(context, netuid, index, hotkey)
    context.events.deposit(PALLET, "WeightsCommitted", (hotkey, index, commit))


def reveal_weights(context: Context, origin: Origin, call: Call) -> None:
    """Apply weights that were committed."""
    hotkey, netuid = origin.signed(), int(call.args["netuid"])
    if not context.state.get(PALLET, "CommitRevealWeightsEnabled", netuid):
        raise ModuleFailure(PALLET, "CommitRevealDisabled")
    mechanism = int(call.args.get("mecid", 0))
    weights.check_mechanism(context.state, netuid, mechanism)
    index = neurons.storage_index(netuid, mechanism)
    all_pending = _pending(context, index, hotkey)
    pending = [entry for entry in all_pending if entry[3] >= context.block]
    commit = reveal_hash(context, hotkey, index, call)
    match = next((entry for entry in pending if entry[0] == commit), None)
    if match is None:
        raise ModuleFailure(PALLET, _missing_reason(all_pending, pending, commit))
    if match[2] > context.block:
        raise ModuleFailure(PALLET, "RevealTooEarly")
    pending.remove(match)
    context.state.put(PALLET, "WeightCommits", index, hotkey, pending)
    weights.apply_weights(
        context,
        hotkey,
        netuid=netuid,
        mechanism=mechanism,
        uids=[int(uid) for uid in call.args["uids"]],
        values=[int(value) for value in call.args["values"]],
        version_key=int(call.args["version_key"]),
        is_reveal=True,
    )
    context.events.deposit(PALLET, "WeightsRevealed", (hotkey, index, commit))


def batch_commit_weights(context: Context, origin: Origin, call: Call) -> None:
    """Commit on several subnets; each succeeds or fails on its own."""
    netuids, hashes = call.args["netuids"], call.args["commit_hashes"]
    if len(netuids) != len(hashes):
        raise ModuleFailure(PALLET, "InputLengthsUnequal")
    failed = False
    for netuid, commit in zip(netuids, hashes, strict=True):
        args = {"netuid": int(netuid), "commit_hash": commit}
        failed |= not weights.try_call(context, origin, "commit_weights", args)
    name = "BatchCompletedWithErrors" if failed else "BatchWeightsCompleted"
    context.events.deposit(PALLET, name, None if failed else (netuids, origin.signed()))


def batch_reveal_weights(context: Context, origin: Origin, call: Call) -> None:
    """Reveal several commits of one subnet; all of them, or none."""
    hotkey, netuid = origin.signed(), int(call.args["netuid"])
    columns = [
        call.args[name] for name in ("uids_list", "values_list", "salts_list", "version_keys")
    ]
    if len({len(column) for column in columns}) != 1:
        raise ModuleFailure(PALLET, "InputLengthsUnequal")
    digests = []
    index = neurons.storage_index(netuid, 0)
    for uids, values, salt, key in zip(*columns, strict=True):
        args = {"netuid": netuid, "uids": uids, "values": values, "salt": salt, "version_key": key}
        data = context.codec.compose_call(PALLET, "reveal_weights", args)
        one = context.codec.decode_call(data)
        context.dispatch(origin, one)
        digests.append(reveal_hash(context, hotkey, index, one))
    context.events.deposit(PALLET, "WeightsBatchRevealed", (hotkey, netuid, digests))


def commit_timelocked_weights(context: Context, origin: Origin, call: Call) -> None:
    """Store a timelocked commit of mechanism 0."""
    _commit_timelocked(context, origin.signed(), call, mechanism=0, commit_at=_NETUID_END)


def commit_timelocked_mechanism_weights(context: Context, origin: Origin, call: Call) -> None:
    """Store a timelocked commit of one mechanism."""
    mechanism = int(call.args["mecid"])
    hotkey = origin.signed()
    _commit_timelocked(context, hotkey, call, mechanism=mechanism, commit_at=_NETUID_END + 1)


def reveal_hash(context: Context, hotkey: str, index: int, call: Call) -> str:
    """Return the commit hash that a reveal must match (0x-hex)."""
    fields = (
        context.codec.encode("AccountId32", hotkey)
        + index.to_bytes(2, "little")
        + _u16s(call.args["uids"])
        + _u16s(call.args["values"])
        + _u16s(call.args["salt"])
        + int(call.args["version_key"]).to_bytes(8, "little")
    )
    return "0x" + blake2_256(fields).hex()


def _commit_timelocked(
    context: Context, hotkey: str, call: Call, *, mechanism: int, commit_at: int
) -> None:
    state, netuid = context.state, int(call.args["netuid"])
    if int(call.args["commit_reveal_version"]) != int(
        state.get(PALLET, "CommitRevealWeightsVersion")
    ):
        raise ModuleFailure(PALLET, "IncorrectCommitRevealVersion")
    index = _check_commit(context, hotkey, netuid, mechanism=mechanism)
    commit = Reader(call.data, commit_at).octets()
    reveal_round = int(call.args["reveal_round"])
    epoch = int(state.get(PALLET, "SubnetEpochIndex", netuid))
    known = Reader(state.raw(PALLET, "TimelockedWeightCommits", index, epoch) or b"\x00")
    number, before = known.compact(), known.rest()
    entry = (
        context.codec.encode("AccountId32", hotkey)
        + context.block.to_bytes(8, "little")
        + octets(commit)
        + reveal_round.to_bytes(8, "little")
    )
    if before.count(entry[:32]) >= MAX_UNREVEALED:
        raise ModuleFailure(PALLET, "TooManyUnrevealedCommits")
    raw = compact(number + 1) + before + entry
    state.put_raw(PALLET, "TimelockedWeightCommits", index, epoch, raw)
    _touch(context, netuid, index, hotkey)
    digest = "0x" + blake2_256(commit).hex()
    event = (hotkey, index, digest, reveal_round)
    context.events.deposit(PALLET, "TimelockedWeightsCommitted", event)


def _check_commit(context: Context, hotkey: str, netuid: int, *, mechanism: int) -> int:
    state = context.state
    weights.check_mechanism(state, netuid, mechanism)
    if not state.get(PALLET, "CommitRevealWeightsEnabled", netuid):
        raise ModuleFailure(PALLET, "CommitRevealDisabled")
    uid = weights.check_sender(state, netuid, hotkey)
    index = neurons.storage_index(netuid, mechanism)
    if weights.is_too_fast(state, netuid, index, uid, context.block):
        raise ModuleFailure(PALLET, "CommittingWeightsTooFast")
    return index


def _touch(context: Context, netuid: int, index: int, hotkey: str) -> None:
    uid = neurons.uid_of(context.state, netuid, hotkey)
    assert uid is not None
    neurons.put_entry(context.state, "LastUpdate", index, uid, context.block)


def _window(context: Context, netuid: int) -> tuple[int, int]:
    """Return the first and last block of the epoch in which a commit of now is revealed."""
    last_epoch = int(context.state.get(PALLET, "LastEpochBlock", netuid))
    tempo = int(context.state.get(PALLET, "Tempo", netuid))
    period = int(context.state.get(PALLET, "RevealPeriodEpochs", netuid))
    first = last_epoch + tempo * period
    return first, first + tempo - 1


def _missing_reason(all_pending: list[Any], pending: list[Any], commit: str) -> str:
    if any(entry[0] == commit for entry in all_pending):
        return "ExpiredWeightCommit"
    return "InvalidRevealCommitHashNotMatch" if pending else "NoWeightsCommitFound"


def _pending(context: Context, index: int, hotkey: str) -> list[Any]:
    return list(context.state.get(PALLET, "WeightCommits", index, hotkey) or [])


def _u16s(values: list[int]) -> bytes:
    return compact(len(values)) + b"".join(int(v).to_bytes(2, "little") for v in values)


CALLS: dict[str, Handler] = {
    "commit_weights": commit_weights,
    "commit_mechanism_weights": commit_weights,
    "batch_commit_weights": batch_commit_weights,
    "reveal_weights": reveal_weights,
    "reveal_mechanism_weights": reveal_weights,
    "batch_reveal_weights": batch_reveal_weights,
    "commit_timelocked_weights": commit_timelocked_weights,
    "commit_timelocked_mechanism_weights": commit_timelocked_mechanism_weights,
}
