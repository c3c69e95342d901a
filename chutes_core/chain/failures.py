"""Turns every failure of the chain libraries into a typed error with a code and a hint.

The only place that knows the SDK's error names. Invariant: what a caller of chain/ sees is a
ChutesError; the foreign error stays behind it as its cause.
"""

import re

import bittensor as bt

from chutes_core.base.errors import ChainError, ChutesError, TimedOut, Unavailable

COLDKEY_CANNOT_PAY = "coldkey_cannot_pay"
NODE_LOST = frozenset({"chain_unreachable", "chain_timeout"})
"""Codes of a lost node: a new connection may help."""
_FEE_NAMES = frozenset({"Payment"})
_MONEY_NAMES = frozenset({"InsufficientBalance", "FundsUnavailable", "NotEnoughBalanceToStake"})
_HINTS = {
    "weights_rate_limited": "wait for the subnet's weights rate limit; nothing is lost",
    "not_registered": "register the hotkey first: scripts/register.py",
    "bad_axon_address": "the chain takes global addresses only; announce the public IP",
}
_CODES = {
    "SettingWeightsTooFast": "weights_rate_limited",
    "CommittingWeightsTooFast": "weights_rate_limited",
    "RateLimitExceeded": "chain_rate_limited",
    "HotKeyNotRegisteredInSubNet": "not_registered",
    "HotKeyNotRegisteredInNetwork": "not_registered",
    "NotRegistered": "not_registered",
    "InvalidIpAddress": "bad_axon_address",
    "NeuronNoValidatorPermit": "no_validator_permit",
    "IncorrectWeightVersionKey": "weights_version_newer",
    "RegistrationPriceLimitExceeded": "burn_over_limit",
}


def unreachable(url: str, error: Exception) -> Unavailable:
    """Return the error for a node that cannot be reached or did not answer in time."""
    late = isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError"
    kind = TimedOut if late else Unavailable
    return kind(
        "chain_timeout" if late else "chain_unreachable",
        f"the chain node {url} {'did not answer in time' if late else 'cannot be reached'}",
        hint="check the node's URL and that it is synced; reads are tried again by themselves",
        url=url,
    )


def closed(url: str) -> Unavailable:
    """Return the error for a call on a connection that was closed."""
    return Unavailable("chain_closed", f"the connection to {url} is closed", url=url)


def refused(error: bt.BittensorError, doing: str, *, hotkey_signed: bool) -> ChutesError:
    """Return the error for what the chain (or the SDK's own check) refused.

    Args:
        error: what the SDK raised or reported.
        doing: what was tried, e.g. ``set weights``.
        hotkey_signed: the signer was a hotkey, so that its coldkey pays the fee.
    """
    name = getattr(error, "name", None) or ""
    sdk_code = getattr(error, "code", None)
    code = _CODES.get(name) or (_snake(name) if name else str(getattr(sdk_code, "value", "chain")))
    if name in _FEE_NAMES or name in _MONEY_NAMES or code == "insufficient_balance":
        if hotkey_signed:
            return ChainError(
                COLDKEY_CANNOT_PAY,
                f"cannot {doing}: the coldkey that owns the hotkey cannot pay the fee",
                hint="send a little TAO to the coldkey; hotkey calls are charged to it",
            )
        return ChainError(
            "insufficient_balance",
            f"cannot {doing}: the coldkey's free balance is too low",
            hint="send TAO to the coldkey; it needs the price and the fee",
        )
    hint = _HINTS.get(code) or str(getattr(error, "remediation", "") or "")
    return ChainError(code, f"cannot {doing}: {error}", hint=hint, chain_error=name)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
