"""Which validator each GPU should serve: by stake, with a floor of one GPU while there are enough.

Pure. A miner with fewer GPUs than validators picks by weighted rendezvous hashing, so that many
small miners together follow the stakes although each serves one or two validators only.
Source of the hashing: weighted rendezvous, key -weight / ln(uniform hash) (Schindelhauer and
Schomaker, 2005); the largest key wins, and a change of one stake moves only its own share.
Invariant: every GPU gets exactly one validator; a GPU that is pinned keeps its own.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_HASH_RANGE = 1 << 64


@dataclass(frozen=True)
class Tenant:
    """One instance: its GPUs, its validator, how long it has run and what its users pay."""

    gpu_uuids: tuple[str, ...]
    validator_hotkey: str
    age_s: float
    rao_per_hour: int = 0


def share_gpus(
    gpus: Sequence[str],
    stakes: Mapping[str, int],
    pinned: Mapping[str, str],
    entitled: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """Return GPU uuid -> validator hotkey.

    Who has nothing comes first, then who has less than its share, then who is lent what is over.

    Args:
        gpus: uuids of the node's GPUs.
        stakes: stake in rao of each validator that wants GPUs now.
        pinned: GPUs that must stay where they are (they run an instance, or their lease goes on).
        entitled: stake of each validator that may be served, if more than ``stakes``.
    """
    shares = {gpu: pinned[gpu] for gpu in gpus if gpu in pinned}
    if not stakes:
        return shares
    held = Counter(shares.values())
    own, lent = _quotas(len(gpus), entitled or stakes), _quotas(len(gpus), stakes)
    for gpu in gpus:
        if gpu in shares:
            continue
        below = [v for v in stakes if held[v] < own.get(v, 0)]
        bare = [v for v in below if not held[v]]
        open_to = bare or below or [v for v in stakes if held[v] < lent[v]] or list(stakes)
        chosen = max(open_to, key=lambda v, gpu=gpu: _key(gpu, v, stakes[v]))  # type: ignore[misc]
        shares[gpu] = chosen
        held[chosen] += 1
    return shares


def to_return(
    gpus: Sequence[str],
    stakes: Mapping[str, int],
    *,
    leased: Mapping[str, str],
    tenants: Sequence[Tenant],
    missing: Mapping[str, int],
    min_run_s: float,
) -> frozenset[str]:
    """Return busy GPUs that were lent and go back: their leases are not prolonged.

    A validator gets back what it wants, at most to its share, from those that hold more than
    theirs; cheapest and oldest instances first, none that has run for less than ``min_run_s``.
    GPUs that are idle come back by themselves and are counted first. With fewer GPUs than
    validators nobody has a share of one, and nothing is returned.

    Args:
        gpus: uuids of the node's GPUs.
        stakes: stake of each validator that may be served.
        leased: GPU uuid -> the validator of its last lease.
        tenants: the instances.
        missing: validator -> GPUs that it wants and has not got.
        min_run_s: the least time that an instance gets.
    """
    if len(gpus) < len(stakes):
        return frozenset()
    quota = _quotas(len(gpus), stakes) if stakes else {}
    holds = Counter(leased[gpu] for gpu in gpus if gpu in leased)
    owed = sum(min(n, max(0, quota.get(v, 0) - holds[v])) for v, n in missing.items())
    busy = {gpu for tenant in tenants for gpu in tenant.gpu_uuids}
    owed -= sum(1 for gpu in gpus if gpu not in busy and not missing.get(leased.get(gpu, ""), 0))
    returned: set[str] = set()
    for tenant in sorted(tenants, key=lambda t: (t.rao_per_hour, -t.age_s, t.gpu_uuids)):
        count, validator = len(tenant.gpu_uuids), tenant.validator_hotkey
        if owed <= 0:
            break
        if tenant.age_s < min_run_s or holds[validator] - quota.get(validator, 0) < count:
            continue
        returned.update(tenant.gpu_uuids)
        holds[validator] -= count
        owed -= count
    return frozenset(returned)


def _quotas(count: int, stakes: Mapping[str, int]) -> dict[str, int]:
    """Return how many of ``count`` GPUs each validator gets; largest remainders, floor of one."""
    if count < len(stakes):
        return dict.fromkeys(stakes, 1)  # the hashing picks which of them are served
    weights = {validator: max(1, stake) for validator, stake in stakes.items()}
    total = sum(weights.values())
    spare = count - len(stakes)
    quota = {validator: 1 + spare * weight // total for validator, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda v: (-(spare * weights[v] % total), v))
    for validator in by_remainder[: count - sum(quota.values())]:
        quota[validator] += 1
    return quota


def _key(gpu: str, validator: str, stake_rao: int) -> tuple[float, str]:
    digest = hashlib.sha256(f"{gpu}|{validator}".encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 1) / (_HASH_RANGE + 1)
    return -max(1, stake_rao) / math.log(uniform), validator
