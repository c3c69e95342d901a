"""Scores to the u16 vector that the chain takes, by the rules of DESIGN section 4, "Weights".

Pure. On the path score -> **vector** -> weights -> chain. Invariants: a weight goes to a uid only
while the same hotkey *and* registration hold it; never to oneself; a miner without a score gets
none; the vector obeys the subnet's minimum count and largest share, or there is no vector.
"""

from collections.abc import Collection, Mapping

from chutes_core.base.errors import Invalid
from chutes_core.chain.metagraph import Metagraph
from chutes_core.chain.subnet import U16_MAX, Subnet
from chutes_core.validator.scoring.score import MinerKey


def to_weights(
    scores: Mapping[MinerKey, int], metagraph: Metagraph, subnet: Subnet, own_uid: int
) -> dict[int, int]:
    """Return the weight (u16) of each uid; only the proportions matter to the chain.

    Nothing measured gives all to the subnet owner's uid (the burn convention). Fewer uids than the
    subnet's minimum are padded with the owner's uid at the smallest weight, and beyond it with
    uids of weight zero, which the chain counts. Shares above the subnet's largest are cut and
    what was cut is spread over the others in proportion.

    Args:
        scores: by (hotkey, registration block); zero and negative ones count as none.
        metagraph: who holds which uid now.
        subnet: the limits.
        own_uid: the validator's.

    Raises:
        Invalid: ``no_burn_uid`` (nothing measured, and the owner's hotkey is not registered or
            is oneself), or ``weights_infeasible`` (the subnet's limits admit no vector).
    """
    weights = _measured(scores, metagraph, own_uid)
    owner = metagraph.by_hotkey(subnet.owner_hotkey)
    owner_uid = None if owner is None or owner.uid == own_uid else owner.uid
    if not weights:
        if owner_uid is None:
            raise Invalid(
                "no_burn_uid",
                "nothing was measured, and the subnet owner has no uid to take the weight",
                hint="nothing is sent; the chain keeps the last vector",
            )
        weights = {owner_uid: U16_MAX}
    weights = _to_u16(weights)
    minimum = min(subnet.min_allowed_weights, len(metagraph.neurons))
    if len(weights) < minimum and owner_uid is not None:
        weights.setdefault(owner_uid, 1)
    weights = _limit_shares(weights, subnet.max_weight_limit)
    for neuron in metagraph.neurons:
        if len(weights) >= minimum:
            break
        if neuron.uid != own_uid:
            weights.setdefault(neuron.uid, 0)
    return dict(sorted(weights.items()))


def _measured(scores: Mapping[MinerKey, int], metagraph: Metagraph, own_uid: int) -> dict[int, int]:
    weights = {}
    for (hotkey, registered_at_block), points in scores.items():
        neuron = metagraph.by_hotkey(hotkey)
        if points <= 0 or neuron is None or neuron.uid == own_uid:
            continue
        if neuron.registered_at_block == registered_at_block:
            weights[neuron.uid] = points
    return weights


def _to_u16(weights: Mapping[int, int]) -> dict[int, int]:
    """Scale so that the largest is 65535; what is above zero stays above zero."""
    top = max(weights.values())
    return {uid: max(1, points * U16_MAX // top) for uid, points in weights.items()}


def _limit_shares(weights: dict[int, int], limit: int) -> dict[int, int]:
    """Cut the largest weights until none is above ``limit`` 65535ths of the sum.

    With the k largest cut to c and the rest summing to r, c / (k c + r) <= limit / 65535 holds
    up to c = limit r / (65535 - k limit); the smallest k for which the cut fits is taken. Where
    no weight is small enough to stay uncut, all are equal, which must then fit.
    """
    if _fits(weights.values(), limit):
        return weights
    ordered = sorted(weights.values(), reverse=True)
    for count in range(1, len(ordered)):
        rest = sum(ordered[count:])
        room = U16_MAX - count * limit
        if room <= 0:
            break
        cut = limit * rest // room
        if cut >= ordered[count]:
            whole = U16_MAX // cut  # an integer factor keeps the proportions exactly
            capped = {uid: min(value, cut) * whole for uid, value in weights.items()}
            if _fits(capped.values(), limit):
                return capped
    equal = dict.fromkeys(weights, U16_MAX)
    if not _fits(equal.values(), limit):
        raise Invalid(
            "weights_infeasible",
            f"{len(weights)} weights cannot stay below {limit}/65535 of their sum each",
            hint="the subnet's max_weight_limit asks for more miners than have work",
        )
    return equal


def _fits(values: Collection[int], limit: int) -> bool:
    return max(values) * U16_MAX <= limit * sum(values)
