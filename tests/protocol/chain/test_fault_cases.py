"""The cases are the devnet's own list."""

from fault_cases import CASES, LAST

from chutes_core.devnet.faults import FAULT_KINDS


def test_every_fault_of_the_devnet_is_walked():
    """A new fault of the devnet must be survived by money and weights, too."""
    assert {case.kind for case in CASES} == FAULT_KINDS
    assert CASES[-1].kind == LAST
