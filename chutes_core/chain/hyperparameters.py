"""What we recommend of a subnet's hyperparameters, why, and the calls that would set them.

Behind scripts/subnet.py; pure but for `read_values`. Invariant: a rule names the storage item that
it judges, so that a test can let the chain itself carry out a plan and judge again. Who may send a
call (``owner`` or ``root``) is as in runtime spec 461's AdminUtils pallet.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import bittensor as bt

from chutes_core.chain.client import ChainClient, composed
from chutes_core.chain.extrinsics import finalized_head
from chutes_core.chain.subnet import U16_MAX, Subnet

Values = Mapping[str, int]
Bound = Callable[[Values], int]

OWNER, ROOT, NOBODY = "owner", "root", "nobody"
RAO_PER_TENTH_TAO = 100_000_000
KNOWN_WEIGHTS_VERSION = 1


@dataclass(frozen=True)
class Rule:
    """One hyperparameter: the range that is fine, what a plan sets, and why.

    ``low`` and ``high`` may depend on other values; ``argument`` is the call's own name of the
    value. Truth values count as 0 and 1.
    """

    name: str
    item: str
    low: Bound
    high: Bound
    wanted: int
    who: str
    argument: str
    reason: str
    flag: bool = False

    @property
    def call(self) -> str:
        """Name of the AdminUtils call that sets it."""
        return f"sudo_set_{self.name}"


@dataclass(frozen=True)
class Finding:
    """How one value compares with its rule."""

    name: str
    value: int
    low: int
    high: int
    wanted: int
    ok: bool
    who: str
    reason: str


@dataclass(frozen=True)
class Planned:
    """One extrinsic that would bring a value into its range."""

    call: str
    arguments: Mapping[str, int | bool]
    signer: str
    call_data: str
    command: str


def _at(value: int) -> Bound:
    return lambda _: value


def _exactly(value: int) -> dict[str, Any]:
    return {"low": _at(value), "high": _at(value), "wanted": value}


def _between(low: int, high: int, wanted: int) -> dict[str, Any]:
    return {"low": _at(low), "high": _at(high), "wanted": wanted}


def _flag(value: int) -> dict[str, Any]:
    return {**_exactly(value), "flag": True}


RULES: tuple[Rule, ...] = (
    Rule(
        "tempo",
        "Tempo",
        **_exactly(360),
        who=ROOT,
        argument="tempo",
        reason="an epoch of 72 minutes: weights are sent once in its last quarter",
    ),
    Rule(
        "weights_set_rate_limit",
        "WeightsSetRateLimit",
        low=_at(0),
        high=lambda values: 3 * values["tempo"] // 4,
        wanted=100,
        who=ROOT,
        argument="weights_set_rate_limit",
        reason="above three quarters of the tempo a validator would miss epochs",
    ),
    Rule(
        "commit_reveal_weights_enabled",
        "CommitRevealWeightsEnabled",
        **_flag(1),
        who=OWNER,
        argument="enabled",
        reason="weights that can be read before they count are copied instead of measured",
    ),
    Rule(
        "commit_reveal_weights_interval",
        "RevealPeriodEpochs",
        **_exactly(1),
        who=OWNER,
        argument="interval",
        reason="one epoch hides a vector long enough; more pays miners late",
    ),
    Rule(
        "min_allowed_weights",
        "MinAllowedWeights",
        **_between(0, 1, 1),
        who=OWNER,
        argument="min_allowed_weights",
        reason="where nothing was measured the whole vector is one uid, the owner's",
    ),
    Rule(
        "max_weights_limit",
        "MaxWeightsLimit",
        **_exactly(U16_MAX),
        who=NOBODY,
        argument="",
        reason="where nothing was measured one uid, the owner's, has to take everything",
    ),
    Rule(
        "weights_version_key",
        "WeightsVersionKey",
        **_between(0, KNOWN_WEIGHTS_VERSION, KNOWN_WEIGHTS_VERSION),
        who=OWNER,
        argument="weights_version_key",
        reason="a version above what this release knows stops its validators, on purpose",
    ),
    Rule(
        "immunity_period",
        "ImmunityPeriod",
        **_between(7_200, 21_600, 14_400),
        who=OWNER,
        argument="immunity_period",
        reason="a new miner needs a day to be attested and to earn; three days shelter idlers",
    ),
    Rule(
        "max_allowed_uids",
        "MaxAllowedUids",
        **_between(64, 256, 256),
        who=OWNER,
        argument="max_allowed_uids",
        reason="every uid is a machine to attest; fewer than 64 prune honest miners",
    ),
    Rule(
        "max_allowed_validators",
        "MaxAllowedValidators",
        **_between(8, 64, 64),
        who=ROOT,
        argument="max_allowed_validators",
        reason="each permitted validator leases GPUs of its own",
    ),
    Rule(
        "network_registration_allowed",
        "NetworkRegistrationAllowed",
        **_flag(1),
        who=ROOT,
        argument="registration_allowed",
        reason="miners register by burning",
    ),
    Rule(
        "network_pow_registration_allowed",
        "NetworkPowRegistrationAllowed",
        **_flag(0),
        who=OWNER,
        argument="registration_allowed",
        reason="a uid won by hashing says nothing about GPUs, and takes one from who has them",
    ),
    Rule(
        "min_burn",
        "MinBurn",
        **_between(RAO_PER_TENTH_TAO // 10, 10 * RAO_PER_TENTH_TAO, RAO_PER_TENTH_TAO),
        who=OWNER,
        argument="min_burn",
        reason="below 0.01 TAO uids are hoarded, above 1 TAO small miners stay away",
    ),
    Rule(
        "max_burn",
        "MaxBurn",
        **_between(100 * RAO_PER_TENTH_TAO, 10_000 * RAO_PER_TENTH_TAO, 1_000 * RAO_PER_TENTH_TAO),
        who=OWNER,
        argument="max_burn",
        reason="a rush must be able to raise the price of a uid, or bots take every free one",
    ),
    Rule(
        "serving_rate_limit",
        "ServingRateLimit",
        **_between(0, 50, 50),
        who=OWNER,
        argument="serving_rate_limit",
        reason="a miner whose address changed must be found again within ten minutes",
    ),
)


def read_values(client: ChainClient) -> dict[str, int]:
    """Return the value of every rule's item at the finalized head, by the rule's name.

    Raises:
        Unavailable: the node stayed unreachable.
    """

    async def read(substrate: bt.RpcSubstrate) -> dict[str, int]:
        _, block_hash = await finalized_head(substrate)
        return {
            rule.name: int(
                await substrate.query(
                    "SubtensorModule", rule.item, [client.netuid], block_hash=block_hash
                )
            )
            for rule in RULES
        }

    return client.read(read, "read the hyperparameters")


def judge(values: Values) -> tuple[Finding, ...]:
    """Compare values with the rules, in the rules' order."""
    findings = []
    for rule in RULES:
        low, high, value = rule.low(values), rule.high(values), values[rule.name]
        wanted = max(low, min(rule.wanted, high))
        ok = low <= value <= high
        findings.append(Finding(rule.name, value, low, high, wanted, ok, rule.who, rule.reason))
    return tuple(findings)


def plan(client: ChainClient, findings: tuple[Finding, ...]) -> tuple[Planned, ...]:
    """Return the extrinsics that would bring every value that can be set into its range.

    Raises:
        Unavailable: the node stayed unreachable.
    """
    rules = {rule.name: rule for rule in RULES}
    wrong = (f for f in findings if not f.ok and f.who != NOBODY)
    return tuple(_planned(client, rules[f.name], f.wanted) for f in wrong)


def owner_problems(subnet: Subnet, hotkeys: frozenset[str]) -> tuple[str, ...]:
    """Return what is wrong with the subnet's owner hotkey, in sentences."""
    if subnet.owner_hotkey not in hotkeys:
        return (
            f"the owner's hotkey {subnet.owner_hotkey} has no uid: weights of epochs in which"
            " nothing was measured have nowhere to go (scripts/register.py)",
        )
    return ()


def _planned(client: ChainClient, rule: Rule, wanted: int) -> Planned:
    value: int | bool = bool(wanted) if rule.flag else wanted
    arguments = {"netuid": client.netuid, rule.argument: value}
    call = getattr(bt.calls.AdminUtils, rule.call)(**arguments)
    data = client.read(composed(call), "compose a call").data
    shown = ", ".join(f'"{name}": {str(v).lower()}' for name, v in arguments.items())
    sudo = " --sudo" if rule.who == ROOT else ""
    return Planned(
        call=f"AdminUtils.{rule.call}",
        arguments=arguments,
        signer=rule.who,
        call_data="0x" + bytes(data).hex(),
        command=f"btcli call AdminUtils.{rule.call} --args '{{{shown}}}'{sudo}",
    )
