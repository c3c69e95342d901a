"""NodeSelector: defaults, bounds, and that some GPU always fits."""

import pytest
from pydantic import ValidationError

from chutes_core.base.errors import Invalid
from chutes_core.base.gpus import GPU_CLASSES
from chutes_core.sdk.node_selector import NodeSelector


def test_defaults_are_the_public_ones():
    """Without arguments: one GPU of 16 GB, any class."""
    assert NodeSelector().model_dump() == {
        "gpu_count": 1,
        "min_vram_gb_per_gpu": 16,
        "max_hourly_price_per_gpu": None,
        "include": None,
        "exclude": None,
    }
    assert set(NodeSelector().supported_gpus) == set(GPU_CLASSES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gpu_count": 0},
        {"gpu_count": 9},
        {"min_vram_gb_per_gpu": 15},
        {"min_vram_gb_per_gpu": 141},
        {"max_hourly_price_per_gpu": 0},
    ],
)
def test_bounds(wrong):
    """Numbers outside the public bounds are refused."""
    with pytest.raises(ValidationError):
        NodeSelector(**wrong)


def test_unknown_arguments_are_ignored():
    """An argument of another version of the client does no harm."""
    assert NodeSelector(gpu_count=2, colour="blue") == NodeSelector(gpu_count=2)


def test_price_limit_compares_in_exact_units():
    """A limit equal to a list price admits that class and nothing dearer."""
    fitting = NodeSelector(max_hourly_price_per_gpu=0.25).supported_gpus
    assert "3090" in fitting
    assert all(GPU_CLASSES[name].usd_micros_per_hour <= 250_000 for name in fitting)


def test_include_and_exclude():
    """include narrows, exclude takes away."""
    assert NodeSelector(include=["h100", "h200"], exclude=["h200"]).supported_gpus == ("h100",)


@pytest.mark.parametrize("field", ["include", "exclude"])
def test_unknown_class_is_named(field):
    """A GPU that does not exist can be declared, as in the public SDK, and not be deployed."""
    selector = NodeSelector(**{field: ["h1000"]})
    with pytest.raises(Invalid, match="unknown_gpu") as caught:
        selector.check()
    assert "h100_sxm" in caught.value.hint


def test_a_selector_that_no_gpu_fits_is_refused():
    """Asking for what no class has fails before anything is sent, not at the first call."""
    with pytest.raises(Invalid, match="no_gpu_fits"):
        NodeSelector(include=["3090"], min_vram_gb_per_gpu=80).check()
