"""An epoch: `yuma` turns weights into scores, scores become stake, the next permits are chosen.

Runs in the first block whose distance from the last epoch reaches the tempo. Emission, alpha per
block: the owner's cut, then half to miners by incentive, half to validators by dividends. What
falls to the owner's uid as a miner is burned (the convention by which a subnet burns its miners'
emission). Simplified: a constant emission for every subnet that has started, no takes, no child
keys, no root dividends, and nothing is paid where nobody has weights. Invariant: integers only, and
no more is paid out than was emitted.
"""

from chutes_core.devnet.events import EventLog
from chutes_core.devnet.pallets.subtensor import neurons, registration, staking
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.state import StateView, StateWriter
from chutes_core.devnet.yuma import PPM, U16_MAX, EpochInput, EpochResult, compute, normalise

ALPHA_PER_BLOCK = 100_000_000  # a tenth of an alpha


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
        registration.decay_burn(state, netuid)
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
    vectors = {
        "Incentive": result.incentive,
        "Dividends": result.dividends,
        "Consensus": result.consensus,
        "Emission": emission,
        "Active": _active(state, netuid, block, given.last_update),
        "ValidatorPermit": _permits(state, netuid, given.stake),
        "ValidatorTrust": result.trust,
        "StakeWeight": normalise(list(given.stake)),
    }
    for item, values in vectors.items():
        state.put(PALLET, item, netuid, list(values))
    for uid in range(len(given.stake)):
        state.put(PALLET, "Bonds", netuid, uid, result.bonds.get(uid, []))
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
        weights={uid: _pairs(state, "Weights", netuid, uid) for uid in range(size)},
        bonds={uid: _pairs(state, "Bonds", netuid, uid) for uid in range(size)},
        last_epoch=int(state.get(PALLET, "LastEpochBlock", netuid)),
        kappa=int(state.get(PALLET, "Kappa", netuid)),
        bonds_ppm=min(int(state.get(PALLET, "BondsMovingAverage", netuid)), PPM),
    )


def _pairs(state: StateView, item: str, netuid: int, uid: int) -> list[tuple[int, int]]:
    return [(int(target), int(value)) for target, value in state.get(PALLET, item, netuid, uid)]


def _pay(
    state: StateWriter, netuid: int, block: int, result: EpochResult
) -> tuple[list[int], list[int]]:
    """Pay the epoch's emission into stake; return it per uid, and the miners' part per uid."""
    size = len(result.incentive)
    if state.get(PALLET, "FirstEmissionBlockNumber", netuid) is None:
        return [0] * size, [0] * size
    blocks = block - int(state.get(PALLET, "LastEpochBlock", netuid))
    total = ALPHA_PER_BLOCK * blocks
    cut = total * int(state.get(PALLET, "SubnetOwnerCut")) // U16_MAX
    half = (total - cut) // 2
    owner = str(state.get(PALLET, "SubnetOwnerHotkey", netuid))
    hotkeys = [neurons.hotkey_of(state, netuid, uid) for uid in range(size)]
    to_miners = [
        0 if hotkeys[uid] == owner else half * result.incentive[uid] // U16_MAX
        for uid in range(size)
    ]
    emission = [to_miners[uid] + half * result.dividends[uid] // U16_MAX for uid in range(size)]
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
