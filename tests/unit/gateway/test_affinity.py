import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.base.clock import ManualClock
from chutes_core.validator.domain.chutes import Cord
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import ChuteView, InstanceView
from chutes_core.validator.gateway.affinity import PREFIX_BYTES, first_of, prefix_of
from chutes_core.validator.gateway.breaker import FAILURES_TO_OPEN
from chutes_core.validator.gateway.routing import Route, Router

CHAT = Cord("chat", "/chat", "POST", "/v1/chat/completions", "POST", stream=True)
LLM = ChuteView(
    "c", "llm", "llm", "u", True, frozenset(), (CHAT,), Rate("r", 1, 1), 4, standard_template="vllm"
)


@pytest.fixture
def router() -> Router:
    made = Router(clock=ManualClock(), rng=random.Random(7))
    made.swap({"c": tuple(InstanceView(n, "c", "h", 1, b"t", b"r", 4) for n in "abcd")})
    return made


def preferred(router: Router, prefix: bytes, *excluded: str) -> str | None:
    found = router.preferred("c", prefix, excluded)
    return None if found is None else found.view.launch_id


def route(router: Router, name: str) -> Route:
    return router._routes["c"][name]


def test_calls_that_begin_alike_go_to_one_instance(router: Router):
    """The same prefix finds the same instance; many prefixes use all of them."""
    homes = [preferred(router, str(n).encode()) for n in range(400)]
    assert homes == [preferred(router, str(n).encode()) for n in range(400)]
    shares = Counter(homes)
    assert set(shares) == set("abcd")
    assert min(shares.values()) > 50


@settings(deadline=None)
@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=9), st.binary(max_size=300))
def test_only_the_calls_of_an_instance_that_goes_move(names: set[str], prefix: bytes):
    """Whoever leaves, calls that belonged to another stay where they are."""
    home = first_of(prefix, names)
    for gone in names - {home}:
        assert first_of(prefix, names - {gone}) == home


def test_a_full_slow_failing_or_tried_instance_is_not_preferred(router: Router):
    """Then two choices decide."""
    home = preferred(router, b"hello")
    assert home is not None
    mine = route(router, home)
    for _ in range(4):
        router.enter(mine)
    assert preferred(router, b"hello") is None
    for _ in range(4):
        router.leave(mine)
    assert preferred(router, b"hello") == home
    assert preferred(router, b"hello", home) not in (None, home)
    for name in "abcd":
        route(router, name).succeeded(100_000)
    mine.latency_us = 500_000
    assert preferred(router, b"hello") is None
    mine.latency_us = 200_000
    assert preferred(router, b"hello") == home
    for _ in range(FAILURES_TO_OPEN):
        mine.failed(router._clock.monotonic_us())
    assert preferred(router, b"hello") not in (None, home)


def test_load_is_weighed_against_the_cache(router: Router):
    """A few calls more than others are worth the cache; many are not."""
    home = preferred(router, b"hello")
    assert home is not None
    mine = route(router, home)
    for _ in range(2):
        router.enter(mine)
    assert preferred(router, b"hello") == home
    router.enter(mine)
    assert preferred(router, b"hello") is None


def test_of_one_instance_none_is_preferred(router: Router):
    """There is no choice to make."""
    router.swap({"c": (InstanceView("a", "c", "h", 1, b"t", b"r", 4),)})
    assert router.preferred("c", b"x") is None
    assert router.preferred("none", b"x") is None


def test_the_prefix_is_where_messages_or_prompt_begin():
    """What stands before them (model, temperature) and far behind makes no difference."""
    text = b'"messages":[{"role":"system","content":"' + b"s" * 300
    one = prefix_of(LLM, CHAT, b'{"model":"m",' + text + b'one"}]}')
    two = prefix_of(LLM, CHAT, b'{"temperature":1,"model":"m",' + text + b'two"}]}')
    assert one == two
    assert len(one) == PREFIX_BYTES
    assert prefix_of(LLM, CHAT, b'{"prompt":"p"}') == b'"prompt":"p"}'


def test_other_calls_have_no_prefix():
    """Only LLM templates have a cache of prefixes, and only at their two paths."""
    body = b'{"messages":[]}'
    assert prefix_of(LLM, CHAT, b"{}") == b""
    assert prefix_of(replace(LLM, standard_template=None), CHAT, body) == b""
    assert prefix_of(replace(LLM, standard_template="diffusion"), CHAT, body) == b""
    embeddings = replace(CHAT, public_api_path="/v1/embeddings")
    assert prefix_of(LLM, embeddings, body) == b""
