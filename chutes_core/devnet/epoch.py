"""A minimal epoch: weights become incentive, incentive becomes stake.

Runs in the first block whose distance from the last epoch reaches the tempo. Incentive is the
stake-weighted sum of the permitted, active validators' weights, each row normalised, scaled so
that all incentives sum to at most 65535; zero weights give zero incentive. As in Yuma consensus a
row counts only towards neurons registered before it was set, and a validator's weight on itself
does not count. Not as on the chain: no clipping, no bonds, no liquid alpha, only mechanism 0.

Emission, alpha per block: the owner's cut, then half to miners by incentive, half to validators
by stake among those whose weights counted. What falls to the owner's uid as a miner is burned (the
convention by which a subnet burns its miners' emission). Invariant: integers only, and no more is
paid out than was emitted.
"""

from dataclasses import dataclass

from chutes_core.devnet.events import EventLog
from chutes_core.devnet.pallets.subtensor import neurons, staking
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.state import StateView, StateWriter

ALPHA_PER_BLOCK = 100_000_000  # a tenth of an alpha

_U16_MAX = 65_535
_SCALE = 1 << 32


@dataclass(frozen=True)
class EpochInput:
    """What the formula needs, one entry per uid.

    Args:
        stake: alpha, zero below the subnet's threshold.
        counts: whether the neuron's weights count: permitted and active.
        last_update: block of the last weights.
        registered: block of registration.
        weights: rows by uid: (target uid, weight).
    """

    stake: tuple[int, ...]
    counts: tuple[bool, ...]
    last_update: tuple[int, ...]
    registered: tuple[int, ...]
    weights: dict[int, list[tuple[int, int]]]


@dataclass(frozen=True)
class EpochResult:
    """Scores per uid; each list sums to at most 65535."""

    incentive: tuple[int, ...]
    dividends: tuple[int, ...]


def compute(given: EpochInput) -> EpochResult:
    """Return incentive and dividends.

    >>> compute(EpochInput((0, 5, 0), (False, True, False), (0, 9, 0), (0, 0, 0),
    ...                    {1: [(0, 1), (2, 3)]}))
    EpochResult(incentive=(16383, 0, 49151), dividends=(0, 65535, 0))
    """
    size = len(given.stake)
    score = [0] * size
    backing = [0] * size
    for uid in range(size):
        row = [
            (target, weight)
            for target, weight in given.weights.get(uid, [])
            if target != uid and weight and given.last_update[uid] > given.registered[target]
        ]
        total = sum(weight for _, weight in row)
        if not (given.counts[uid] and given.stake[uid] and total):
            continue
        backing[uid] = given.stake[uid]
        for target, weight in row:
            score[target] += given.stake[uid] * weight * _SCALE // total
    return EpochResult(_normalise(score), _normalise(backing))


def is_due(state: StateView, netuid: int, block: int) -> bool:
    """Tell whether the subnet's epoch runs in ``block``."""
    tempo = int(state.get(PALLET, "Tempo", netuid))
    return tempo > 0 and block - int(state.get(PALLET, "LastEpochBlock", netuid)) >= tempo


def step(state: StateWriter, events: EventLog, block: int) -> list[int]:
    """Advance all subnets by one block; return those whose epoch ran."""
    ran = []
    for netuid, added in state.items(PALLET, "NetworksAdded"):
        if not added or netuid == 0:
            continue
        if is_due(state, netuid, block):
            run(state, events, netuid, block)
            ran.append(netuid)
        since = block - int(state.get(PALLET, "LastEpochBlock", netuid))
        state.put(PALLET, "BlocksSinceLastStep", netuid, since)
    return ran


def run(state: StateWriter, events: EventLog, netuid: int, block: int) -> EpochResult:
    """Run one subnet's epoch and write what it yields."""
    given = _read(state, netuid, block)
    result = compute(given)
    emission, to_miners = _pay(state, netuid, block, result)
    top = max(result.incentive, default=0)
    vectors = {
        "Incentive": result.incentive,
        "Dividends": result.dividends,
        "Consensus": tuple(value * _U16_MAX // top if top else 0 for value in result.incentive),
        "Emission": emission,
        "Active": _active(state, netuid, block, given.last_update),
        "ValidatorPermit": _permits(state, netuid, given.stake),
        "ValidatorTrust": tuple(_U16_MAX if value else 0 for value in result.dividends),
        "StakeWeight": _normalise(list(given.stake)),
    }
    for item, values in vectors.items():
        state.put(PALLET, item, netuid, list(values))
    state.put(PALLET, "LastEpochBlock", netuid, block)
    state.put(PALLET, "LastMechansimStepBlock", netuid, block)
    index = int(state.get(PALLET, "SubnetEpochIndex", netuid))
    state.put(PALLET, "SubnetEpochIndex", netuid, index + 1)
    fields = {"netuid": netuid, "emissions": list(to_miners)}
    events.deposit(PALLET, "IncentiveAlphaEmittedToMiners", fields)
    return result


def _read(state: StateView, netuid: int, block: int) -> EpochInput:
    size = neurons.count(state, netuid)
    hotkeys = [neurons.hotkey_of(state, netuid, uid) for uid in range(size)]
    threshold = int(state.get(PALLET, "StakeThreshold"))
    alpha = [staking.hotkey_alpha(state, hotkey, netuid) for hotkey in hotkeys]
    updates = tuple(int(u) for u in neurons.vector(state, "LastUpdate", netuid))
    active = _active(state, netuid, block, updates)
    permits = neurons.vector(state, "ValidatorPermit", netuid)
    return EpochInput(
        stake=tuple(value if value >= threshold else 0 for value in alpha),
        counts=tuple(bool(p and a) for p, a in zip(permits, active, strict=True)),
        last_update=updates,
        registered=tuple(
            int(state.get(PALLET, "BlockAtRegistration", netuid, uid)) for uid in range(size)
        ),
        weights={
            uid: [(int(t), int(w)) for t, w in state.get(PALLET, "Weights", netuid, uid)]
            for uid in range(size)
        },
    )


def _pay(
    state: StateWriter, netuid: int, block: int, result: EpochResult
) -> tuple[list[int], list[int]]:
    """Pay the epoch's emission into stake; return it per uid, and the miners' part per uid."""
    size = len(result.incentive)
    if state.get(PALLET, "FirstEmissionBlockNumber", netuid) is None:
        return [0] * size, [0] * size
    blocks = block - int(state.get(PALLET, "LastEpochBlock", netuid))
    total = ALPHA_PER_BLOCK * blocks
    cut = total * int(state.get(PALLET, "SubnetOwnerCut")) // _U16_MAX
    half = (total - cut) // 2
    owner = str(state.get(PALLET, "SubnetOwnerHotkey", netuid))
    hotkeys = [neurons.hotkey_of(state, netuid, uid) for uid in range(size)]
    to_miners = [
        0 if hotkeys[uid] == owner else half * result.incentive[uid] // _U16_MAX
        for uid in range(size)
    ]
    emission = [to_miners[uid] + half * result.dividends[uid] // _U16_MAX for uid in range(size)]
    for hotkey, alpha in zip(hotkeys, emission, strict=True):
        if alpha:
            staking.emit(state, hotkey, netuid, alpha)
    staking.emit(state, owner, netuid, cut)
    minted = int(state.get(PALLET, "SubnetAlphaOut", netuid)) + sum(emission) + cut
    state.put(PALLET, "SubnetAlphaOut", netuid, minted)
    return emission, to_miners


def _active(
    state: StateView, netuid: int, block: int, updates: tuple[int, ...]
) -> tuple[bool, ...]:
    cutoff = int(state.get(PALLET, "ActivityCutoff", netuid))
    return tuple(update + cutoff >= block for update in updates)


def _permits(state: StateView, netuid: int, stake: tuple[int, ...]) -> list[bool]:
    limit = int(state.get(PALLET, "MaxAllowedValidators", netuid))
    ranked = sorted((uid for uid in range(len(stake)) if stake[uid]), key=lambda u: (-stake[u], u))
    chosen = set(ranked[:limit])
    return [uid in chosen for uid in range(len(stake))]


def _normalise(values: list[int]) -> tuple[int, ...]:
    total = sum(values)
    return tuple(value * _U16_MAX // total if total else 0 for value in values)
