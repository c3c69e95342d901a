"""The floor that every room stands on."""

import asyncio
import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_settings import SettingsConfigDict

from chutes_core.base import ids, units
from chutes_core.base.errors import Invalid
from chutes_core.base.gpus import GPU_CLASSES
from chutes_core.base.loops import Loops
from chutes_core.base.settings import RoleSettings
from chutes_core.base.units import ceil_div, format_tao, parse_tao


@pytest.mark.parametrize("module", [ids, units])
def test_the_examples_in_the_documentation_hold(module):
    """Doctests of the base."""
    assert doctest.testmod(module).failed == 0


@given(st.integers(min_value=0, max_value=10**18))
def test_tao_text_and_rao_are_inverse(rao):
    """No amount is lost between text and integer."""
    assert parse_tao(format_tao(rao)) == rao


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0000000001", "NaN", "Infinity", "1e-10"])
def test_what_is_no_amount_is_refused(text):
    """Never rounded, never guessed."""
    with pytest.raises(Invalid) as caught:
        parse_tao(text)
    assert caught.value.code == "bad_tao"


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_a_charge_is_never_below_its_cost(numerator, denominator):
    """Rounding goes up, by less than one."""
    result = ceil_div(numerator, denominator)
    assert result * denominator >= numerator > (result - 1) * denominator


class Example(RoleSettings):
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="CHUTES_EXAMPLE_")

    port: int = 1


def test_a_mistyped_setting_names_the_closest_one():
    """A typing mistake never silently means the default."""
    with pytest.raises(Invalid) as caught:
        Example.load({"CHUTES_EXAMPLE_PROT": "2"})
    assert "CHUTES_EXAMPLE_PORT" in caught.value.hint


def test_another_roles_settings_are_none_of_ours():
    """Several roles may share an environment."""
    assert Example.load({"CHUTES_OTHER_THING": "2"}).port == 1


def test_prices_are_whole_cents_of_a_known_list():
    """25 classes, each with memory and a price above zero."""
    assert len(GPU_CLASSES) == 25
    for gpu in GPU_CLASSES.values():
        assert gpu.vram_gb >= 16
        assert gpu.usd_micros_per_hour > 0
        assert gpu.usd_micros_per_hour % 10_000 == 0


async def test_a_loop_survives_every_error_and_counts_it_by_code():
    """Typed and unknown errors are counted; the loop goes on until it is closed."""
    loops, rounds, third = Loops(), [], asyncio.Event()

    async def body():
        rounds.append(1)
        if len(rounds) == 1:
            raise Invalid("x", "y")
        if len(rounds) == 2:
            raise ZeroDivisionError
        third.set()
        await asyncio.Event().wait()

    loops.every(0.0, "a", body)
    await asyncio.wait_for(third.wait(), 60)
    await loops.close()
    assert loops.failures == {("a", "x"): 1, ("a", "internal"): 1}
    assert len(rounds) == 3
