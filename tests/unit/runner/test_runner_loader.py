"""What an order may set, and what a failure may show."""

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.runner.loader import MAX_TRACE, check_env, trace_of


@pytest.mark.parametrize(
    "name",
    ["CHUTES_RUNNER_HOST", "PYTHONSTARTUP", "LD_LIBRARY_PATH", "DYLD_X", "", "A=B", "1A", "A\0"],
)
def test_names_that_steer_the_process_are_refused(name):
    """Neither the runner nor Python nor the linker takes orders from an order."""
    with pytest.raises(Invalid) as caught:
        check_env({name: "x"})
    assert caught.value.code == "bad_env"


def test_ordinary_variables_pass():
    """Tokens and options of libraries are what the environment is for."""
    check_env({"HF_TOKEN": "x", "VLLM_USE_V1": "1", "_A": ""})


def test_a_refusal_shows_no_value():
    """A value may be a secret."""
    with pytest.raises(Invalid) as caught:
        check_env({"GOOD": "hush\0hush"})
    assert "hush" not in str(caught.value)


def test_a_long_trace_keeps_its_end():
    """The exception is at the end of a traceback, so the end is what is kept."""
    trace = trace_of(ValueError("x" * 10_000 + "the end"), [])
    assert len(trace) == MAX_TRACE
    assert trace.rstrip().endswith("the end")


def test_secret_values_are_blotted_out():
    """A value that contains another goes first, so that nothing of it stays."""
    trace = trace_of(ValueError("tokens: abcdef-long abcdef"), ["abcdef", "abcdef-long", "tok"])
    assert "abcdef" not in trace
    assert "-long" not in trace
    assert "tokens" in trace
