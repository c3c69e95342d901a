import pytest

from chutes_core.base.errors import Invalid
from chutes_core.validator.billing.rates import Rates
from chutes_core.validator.domain.chutes import Selector

RATES = Rates(tao_usd_micros=400_000_000, max_call_s=600)


def test_price_is_that_of_the_cheapest_admissible_gpu():
    """An instance of two cards of 24 GB costs two L4-class cards' hour, in rao, rounded up."""
    selector = Selector(gpu_count=2, min_vram_gb_per_gpu=24)
    assert RATES.usd_micros_per_hour(selector) == 500_000
    rate = RATES.of(selector)
    assert rate.rao_per_hour == 1_250_000  # 0.50 USD at 400 USD per TAO
    assert rate.hold_rao == 208_334  # ten minutes of it, rounded up


def test_charge_never_exceeds_the_hold():
    """However long the gateway measured, the charge stops at the hold."""
    rate = RATES.of(Selector())
    assert rate.charge_rao(600_000_000) == rate.hold_rao
    assert rate.charge_rao(10**15) == rate.hold_rao
    assert rate.charge_rao(1) == 1
    assert rate.charge_rao(-5) == 0


def test_rate_id_names_the_numbers():
    """Equal prices have equal ids; another TAO price or another longest call is another rate."""
    again = Rates(tao_usd_micros=400_000_000, max_call_s=600)
    assert RATES.of(Selector()) == again.of(Selector())
    ids = {
        RATES.of(Selector()).rate_id,
        RATES.of(Selector(gpu_count=2)).rate_id,
        Rates(401_000_000, 600).of(Selector()).rate_id,
        Rates(400_000_000, 601).of(Selector()).rate_id,
    }
    assert len(ids) == 4


def test_selector_that_nothing_fits_has_no_rate():
    """A selector without a GPU is an error, never a free call."""
    with pytest.raises(Invalid, match="no_gpu_fits"):
        RATES.of(Selector(include=("l4",), exclude=("l4",)))


@pytest.mark.parametrize(("price", "longest"), [(0, 600), (-1, 600), (1, 0)])
def test_price_list_needs_positive_numbers(price, longest):
    """A TAO price of zero would divide by zero or give everything away."""
    with pytest.raises(Invalid):
        Rates(price, longest)


def test_deploy_fee_is_three_hours_of_an_instance():
    """A new chute costs three hours of the cheapest admissible GPUs."""
    assert RATES.deploy_fee_rao(Selector(gpu_count=2, min_vram_gb_per_gpu=24)) == 3 * 1_250_000
