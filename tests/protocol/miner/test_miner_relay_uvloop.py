"""The relay on the loop that the neuron runs it on: all of its tests once more."""

import pytest
import uvloop

from tests.protocol.miner import test_miner_relay as relay_tests

PLAIN = [
    getattr(relay_tests, name)
    for name in sorted(vars(relay_tests))
    if name.startswith("test_") and name != "test_strangers_get_no_word"
]
STRANGERS = relay_tests.test_strangers_get_no_word.pytestmark[0]


@pytest.mark.parametrize("test", PLAIN, ids=lambda test: test.__name__)
def test_the_relay_does_the_same_on_uvloop(test):
    """Each test of the relay holds there too."""
    uvloop.run(test())


@pytest.mark.parametrize(*STRANGERS.args, **STRANGERS.kwargs)
def test_strangers_get_no_word_on_uvloop_either(opening, reason):
    """Nothing is dialled for them."""
    uvloop.run(relay_tests.test_strangers_get_no_word(opening, reason))
