"""Places for large bodies: who may hold how many before the body is read."""

import contextlib

import pytest

from chutes_core.base.errors import Exhausted, Unauthenticated
from chutes_core.validator.api.body import Slots
from chutes_core.validator.api.routes.images import MAX_UPLOADS, MAX_UPLOADS_OF_ONE


async def named(request):
    """Take the request itself for its holder's name."""
    return request


@pytest.fixture
def slots():
    """As the images have them."""
    return Slots(MAX_UPLOADS, each=MAX_UPLOADS_OF_ONE, holder=named)


async def test_one_holder_leaves_places_for_others(slots):
    """The third of one is refused while another's first is let in."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MAX_UPLOADS_OF_ONE):
            await stack.enter_async_context(slots.taken("a"))
        with pytest.raises(Exhausted, match="too many uploads"):
            await stack.enter_async_context(slots.taken("a"))
        await stack.enter_async_context(slots.taken("b"))
    async with slots.taken("a"):
        pass


async def test_all_together_have_so_many_places(slots):
    """Whoever comes after the last place was taken is refused; each that ends makes room."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(MAX_UPLOADS):
            await stack.enter_async_context(slots.taken(f"holder-{number}"))
        with pytest.raises(Exhausted):
            await stack.enter_async_context(slots.taken("one-more"))
    with pytest.raises(ZeroDivisionError):
        async with slots.taken("one-more"):
            raise ZeroDivisionError
    async with contextlib.AsyncExitStack() as stack:
        for number in range(MAX_UPLOADS):
            await stack.enter_async_context(slots.taken(f"again-{number}"))


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer cpk_x"}])
async def test_a_stranger_is_refused_before_the_body(api, headers):
    """Without a credential that can be checked at once, not one byte of the body is asked for."""
    asked = []

    async def body():
        asked.append(1)
        yield b"x"

    answer = await api.http.post("/images/", content=body(), headers=headers)
    assert (answer.status_code, asked) == (401, [])


async def test_a_holder_without_any_proof_is_nobody():
    """What the holder's check raises is the answer, and no place is taken."""

    async def nobody(request):
        raise Unauthenticated("no_credentials", str(request))

    slots = Slots(1, each=1, holder=nobody)
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            async with slots.taken("x"):
                pass
