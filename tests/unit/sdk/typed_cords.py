"""What a type checker says of calling cords; checked by `mypy` (pyproject.toml), never run.

A wrong call has to be an error: an ignore that nothing needs is one in strict mode.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from pydantic import BaseModel
from typing_extensions import assert_type

from chutes_core.sdk.chute import Chute
from chutes_core.sdk.cord import Cord

chute = Chute(username="bob", name="typed", image="bob/app:1")


class Result(BaseModel):
    value: int


@chute.cord()
async def measure(self: Any, text: str, times: int = 1) -> Result:
    return Result(value=len(text) * times)


@chute.cord()
def count(self: Any, text: str) -> int:
    return len(text)


@chute.cord(stream=True)
async def tokens(self: Any, number: int) -> AsyncGenerator[bytes, None]:
    for _ in range(number):
        yield b"x"


@chute.cord(stream=True)
def lines(self: Any) -> Iterator[str]:
    yield "x"


async def called() -> None:
    """Awaited, a cord gives its function's result; a stream's items are text."""
    assert_type(await measure("abc"), Result)
    assert_type(await measure(text="abc", times=2), Result)
    assert_type(await count("abc"), int)
    assert_type(tokens(3), AsyncIterator[str])
    async for item in lines():
        assert_type(item, str)
    await measure()  # type: ignore[call-overload]
    await measure(3)  # type: ignore[call-overload]
    await measure("abc", again=True)  # type: ignore[call-overload]
    await count("abc", 2)  # type: ignore[call-arg]


def called_without_a_loop() -> None:
    """`sync` gives the result itself, and the items of a stream one by one."""
    assert_type(measure.sync("abc"), Result)
    assert_type(count.sync("abc"), int)
    assert_type(tokens.sync(number=3), Iterator[str])
    count.sync(3)  # type: ignore[arg-type]


def any_cord(cord: Cord) -> Any:
    """A cord of which nothing is known can be called with anything."""
    return cord.sync("abc", more=1)
