"""Every failure of the SDK becomes a typed error with a code and a hint."""

import bittensor as bt
import pytest

from chutes_core.base.errors import ChainError, TimedOut, Unavailable
from chutes_core.chain.failures import refused, unreachable


@pytest.mark.parametrize("name", ["Payment", "NotEnoughBalanceToStake", "FundsUnavailable"])
def test_a_hotkeys_fee_names_the_coldkey(name):
    """A hotkey call that cannot be paid says that the coldkey is empty."""
    error = refused(bt.ChainError("x", name), "set weights", hotkey_signed=True)
    assert isinstance(error, ChainError)
    assert error.code == "coldkey_cannot_pay"
    assert error.hint


def test_a_coldkeys_own_call_names_its_balance():
    """A coldkey call that cannot be paid says that the balance is too low."""
    error = refused(bt.ChainError("x", "Payment"), "register", hotkey_signed=False)
    assert error.code == "insufficient_balance"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SettingWeightsTooFast", "weights_rate_limited"),
        ("NeuronNoValidatorPermit", "no_validator_permit"),
        ("HotKeyNotRegisteredInSubNet", "not_registered"),
        ("IncorrectWeightVersionKey", "weights_version_newer"),
        ("SomethingNobodyKnows", "something_nobody_knows"),
    ],
)
def test_names_become_stable_codes(name, code):
    """Known names have our codes; others keep their own in snake case."""
    error = refused(bt.ChainError("x", name), "act", hotkey_signed=True)
    assert error.code == code
    assert error.hint


def test_error_without_a_name_keeps_the_sdks_class():
    """What the node refused without a name is classified by the SDK."""
    error = refused(bt.BittensorError("bad input"), "act", hotkey_signed=True)
    assert error.code == "chain"
    assert "bad input" in error.message


def test_silence_and_refusal_to_connect_differ():
    """No answer in time is a timeout, a closed door is unavailability."""
    assert isinstance(unreachable("ws://x", TimeoutError()), TimedOut)
    down = unreachable("ws://x", ConnectionRefusedError())
    assert isinstance(down, Unavailable)
    assert down.code == "chain_unreachable"
