"""Rounds: who is challenged when is a pure function of the finalized block."""

from chutes_core.validator.launches.pauses import Pauses
from chutes_core.validator.launches.rounds import chosen

MINERS = [f"5Miner{number}" for number in range(40)]


def test_the_same_block_always_names_the_same_miners():
    """Upper case, a prefix and the order of the miners change nothing."""
    one = chosen("0xAB12", "5V", MINERS, one_in=4)
    assert one == chosen("ab12", "5V", reversed(MINERS), one_in=4)
    assert one == sorted(one)


def test_about_one_in_so_many_is_named_and_none_for_zero():
    """Over many blocks the share is what was asked for."""
    named = sum(len(chosen(f"{block:064x}", "5V", MINERS, one_in=10)) for block in range(200))
    assert 600 < named < 1000
    assert chosen("ab", "5V", MINERS, one_in=0) == []
    assert chosen("ab", "5V", MINERS, one_in=1) == sorted(MINERS)


def test_another_validator_draws_other_miners():
    """So the validators' rounds do not fall together."""
    ours = [chosen(f"{b:064x}", "5V", MINERS, one_in=4) for b in range(20)]
    theirs = [chosen(f"{b:064x}", "5W", MINERS, one_in=4) for b in range(20)]
    assert ours != theirs


def test_a_pause_ends_with_its_block_also_after_an_error():
    """Two that overlap hold until the later ends."""
    pauses = Pauses()
    with pauses.holding(["a"]):
        try:
            with pauses.holding(["a", "b"]):
                raise ValueError
        except ValueError:
            pass
        assert "a" in pauses
        assert "b" not in pauses
    assert "a" not in pauses
