"""Which validator each GPU should serve: by stake, with a floor of one GPU while there are enough.

Pure. A miner with fewer GPUs than validators picks by weighted rendezvous hashing, so that many
small miners together follow the stakes although each serves one or two validators only.
Source of the hashing: weighted rendezvous, key -weight / ln(uniform hash) (Schindelhauer and
Schomaker, 2005); the largest key wins, and a change of one stake moves only its own share.
Invariant: every GPU gets exactly one validator; a GPU that is pinned keeps its own.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

_HASH_RANGE = 1 << 64


def share_gpus(
    gpus: Sequence[str], stakes: Mapping[str, int], pinned: Mapping[str, str]
) -> dict[str, str]:
    """Return GPU uuid -> validator hotkey.

    Args:
        gpus: uuids of the node's GPUs.
        stakes: stake in rao of each validator that may be served.
        pinned: GPUs that must stay where they are (they run an instance, or their lease goes on).
    """
    if not stakes:
        return {gpu: pinned[gpu] for gpu in gpus if gpu in pinned}
    shares = {gpu: pinned[gpu] for gpu in gpus if gpu in pinned}
    quota = _quotas(len(gpus), stakes)
    for validator in shares.values():
        quota[validator] = quota.get(validator, 0) - 1
    for gpu in gpus:
        if gpu in shares:
            continue
        open_to = {v: stakes[v] for v in stakes if quota[v] > 0} or stakes
        chosen = max(open_to, key=lambda v, gpu=gpu: _key(gpu, v, stakes[v]))  # type: ignore[misc]
        shares[gpu] = chosen
        quota[chosen] -= 1
    return shares


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
