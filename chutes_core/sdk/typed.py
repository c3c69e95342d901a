"""How a type checker sees a cord: the function's parameters and result, called from elsewhere.

Path: `Chute.cord(…)` -> `MakesCord` -> `Cord[parameters, what the function returns]`, whose calls
say what arrives: a result where the function returns one or a coroutine, text where it yields. The
chute itself (`self`) is no parameter of a call. Only types; nothing here runs.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from typing_extensions import ParamSpec as DefaultParamSpec
from typing_extensions import TypeVar as DefaultTypeVar

if TYPE_CHECKING:
    from chutes_core.sdk.cord import Cord

P = DefaultParamSpec("P", default=...)
ReturnT = DefaultTypeVar("ReturnT", covariant=True, default=Any)
"""What the function returns: a result, a coroutine of one, or an iterator of items."""
ResultT = TypeVar("ResultT")

OwnP = ParamSpec("OwnP")
OwnT = TypeVar("OwnT")


class MakesCord(Protocol):
    """What ``@chute.cord(…)`` is: takes a function of the chute, gives its cord."""

    def __call__(self, function: Callable[Concatenate[Any, OwnP], OwnT], /) -> "Cord[OwnP, OwnT]":
        """Return the cord of a function."""
        ...
