"""Plain bodies, SDK calls and the wire agree for all values."""

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.sdk.chute import Chute
from chutes_core.sdk.schemas import CallInput

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


async def function(self, a: int, b: str, c: list[bool] = []):  # noqa: B006 - a chute file's own
    ...


@given(st.integers(), st.text(), st.lists(st.booleans()), st.integers(0, 3))
def test_positions_and_names_lead_to_the_same_arguments(a, b, c, named):
    """However many arguments are given by position, the function sees the same values."""
    values = {"a": a, "b": b, "c": c}
    names = list(values)
    args = [values[name] for name in names[: 3 - named]]
    kwargs = {name: values[name] for name in names[3 - named :]}
    call = CallInput(function)
    assert call.from_call(args, kwargs) == call.from_body(values) == values


@settings(max_examples=40, deadline=None)
@given(value=JSON)
async def test_any_json_goes_through_a_cord_unchanged(value):
    """An untyped cord gives back exactly what it got, over both paths."""
    chute = Chute(username="bob", name="app", image="bob/app:1")

    @chute.cord(public_api_path="/v1/same")
    async def same(self, given):
        return given

    transport = httpx.ASGITransport(chute)
    async with httpx.AsyncClient(transport=transport, base_url="http://chute") as client:
        plain = await client.post("/v1/same", json={"given": value})
        called = await client.post("/same", json={"args": [value], "kwargs": {}})
    assert plain.json() == called.json() == value
