"""Yuma consensus on integers: weights of validators become incentive, dividends and bonds.

Called by `epoch` with what the state holds; no I/O. Rows are validators, columns are neurons;
W is the weights, each row scaled to `ONE`; S is the stake of those whose weights count.

    consensus   C_j  = the greatest w with  sum of S_i over W_ij >= w  at least kappa of all S
    clipped     W'_ij = min(W_ij, C_j)
    incentive   I_j  = sum_i S_i W'_ij, normalised over j
    trust       T_i  = sum_j W'_ij
    bonds       B_ij = (1 - a) dB_ij + a B_ij of the last epoch, columns normalised, where
                dB_ij = S_i W'_ij with columns normalised and a is the moving average
    dividends   D_i  = sum_j B_ij I_j, normalised over i

As on the chain a row counts only towards neurons registered before it was set, a weight on
oneself does not count, and a bond dies with the registration it was for. Source: the public
description of Yuma consensus, https://docs.learnbittensor.org/learn/yuma-consensus. Left out:
liquid alpha, the bonds penalty (taken as one), Yuma 3, mechanisms other than 0. Invariant: no list
of scores sums to more than 65535, and zero weights give zero.
"""

from dataclasses import dataclass, field

U16_MAX = 65_535
ONE = 1 << 32
PPM = 1_000_000
DEFAULT_KAPPA = 32_767
DEFAULT_BONDS_PPM = 900_000

Sparse = dict[int, list[tuple[int, int]]]


@dataclass(frozen=True)
class EpochInput:
    """What the formulas need, one entry per uid.

    Args:
        stake: alpha, zero below the subnet's threshold.
        counts: whether the neuron's weights count: permitted and active.
        last_update: block of the last weights.
        registered: block of registration.
        weights: rows by uid: (target uid, weight).
        bonds: rows of the last epoch by uid: (target uid, part of 65535).
        last_epoch: block of the last epoch; bonds to later registrations are void.
        kappa: majority, part of 65535.
        bonds_ppm: how much of the old bonds stays, in millionths.
    """

    stake: tuple[int, ...]
    counts: tuple[bool, ...]
    last_update: tuple[int, ...]
    registered: tuple[int, ...]
    weights: Sparse
    bonds: Sparse = field(default_factory=dict)
    last_epoch: int = 0
    kappa: int = DEFAULT_KAPPA
    bonds_ppm: int = DEFAULT_BONDS_PPM


@dataclass(frozen=True)
class EpochResult:
    """Scores per uid, parts of 65535.

    Args:
        incentive: sums to at most 65535.
        dividends: sums to at most 65535.
        consensus: the weight that the majority grants each neuron.
        trust: how much of each validator's row survived the clipping.
        bonds: rows by uid; each column sums to at most 65535.
    """

    incentive: tuple[int, ...]
    dividends: tuple[int, ...]
    consensus: tuple[int, ...]
    trust: tuple[int, ...]
    bonds: Sparse


def compute(given: EpochInput) -> EpochResult:
    """Return what an epoch makes of the weights.

    >>> compute(EpochInput((0, 5, 0), (False, True, False), (0, 9, 0), (0, 0, 0),
    ...                    {1: [(0, 1), (2, 3)]})).incentive
    (16383, 0, 49151)
    """
    size = len(given.stake)
    stake = [s if c else 0 for s, c in zip(given.stake, given.counts, strict=True)]
    rows = {uid: _row(given, uid) for uid in range(size) if stake[uid]}
    consensus = _consensus(rows, stake, size, given.kappa)
    clipped = {
        uid: {target: min(weight, consensus[target]) for target, weight in row.items()}
        for uid, row in rows.items()
    }
    rank = [sum(stake[uid] * row.get(j, 0) for uid, row in clipped.items()) for j in range(size)]
    incentive = normalise(rank)
    bonds = _bonds(given, clipped, stake, size)
    earned = [
        sum(bond * incentive[target] for target, bond in bonds.get(uid, {}).items())
        for uid in range(size)
    ]
    return EpochResult(
        incentive=incentive,
        dividends=normalise(earned),
        consensus=tuple(_u16(value) for value in consensus),
        trust=tuple(_u16(sum(clipped.get(uid, {}).values())) for uid in range(size)),
        bonds={
            uid: [(target, _u16(bond)) for target, bond in sorted(row.items()) if _u16(bond)]
            for uid, row in bonds.items()
        },
    )


def normalise(values: list[int]) -> tuple[int, ...]:
    """Scale values so that they sum to at most 65535, rounding down.

    >>> normalise([1, 3]), normalise([0])
    ((16383, 49151), (0,))
    """
    total = sum(values)
    return tuple(value * U16_MAX // total if total else 0 for value in values)


def _row(given: EpochInput, uid: int) -> dict[int, int]:
    row: dict[int, int] = {}
    for target, weight in given.weights.get(uid, []):
        known = target < len(given.stake) and given.last_update[uid] > given.registered[target]
        if weight and target != uid and known:
            row[target] = row.get(target, 0) + weight
    total = sum(row.values())
    return {target: weight * ONE // total for target, weight in row.items()}


def _consensus(
    rows: dict[int, dict[int, int]], stake: list[int], size: int, kappa: int
) -> list[int]:
    total = sum(stake)
    found = [0] * size
    for target in range(size):
        votes = sorted(((row.get(target, 0), uid) for uid, row in rows.items()), reverse=True)
        behind = 0
        for weight, uid in votes:
            behind += stake[uid]
            if behind * U16_MAX >= kappa * total:
                found[target] = weight
                break
    return found


def _bonds(
    given: EpochInput, clipped: dict[int, dict[int, int]], stake: list[int], size: int
) -> dict[int, dict[int, int]]:
    fresh = _columns(
        {
            uid: {target: stake[uid] * weight for target, weight in row.items()}
            for uid, row in clipped.items()
        }
    )
    old = {
        uid: {
            target: bond * ONE // U16_MAX
            for target, bond in given.bonds.get(uid, [])
            if target < size and given.registered[target] < given.last_epoch
        }
        for uid in range(size)
        if stake[uid]
    }
    keep = given.bonds_ppm
    mixed = {
        uid: {
            target: fresh[uid].get(target, 0) * (PPM - keep) + old[uid].get(target, 0) * keep
            for target in fresh[uid].keys() | old[uid].keys()
        }
        for uid in fresh
    }
    return _columns(mixed)


def _columns(matrix: dict[int, dict[int, int]]) -> dict[int, dict[int, int]]:
    sums: dict[int, int] = {}
    for row in matrix.values():
        for target, value in row.items():
            sums[target] = sums.get(target, 0) + value
    return {
        uid: {target: value * ONE // sums[target] for target, value in row.items() if sums[target]}
        for uid, row in matrix.items()
    }


def _u16(part: int) -> int:
    return min(U16_MAX, (part * U16_MAX + ONE // 2) // ONE)
