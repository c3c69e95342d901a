"""chutes_core: an open serverless GPU cloud on Bittensor.

The public surface, found when first used (PEP 562), so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chutes_core.base.errors import (
        ChainError,
        ChutesError,
        Conflict,
        Denied,
        Exhausted,
        Forbidden,
        Invalid,
        NotFound,
        PaymentRequired,
        ProtocolError,
        TimedOut,
        TooLarge,
        Unauthenticated,
        Unavailable,
    )
    from chutes_core.sdk.chute import Chute
    from chutes_core.sdk.image import Image
    from chutes_core.sdk.job import Job, Port
    from chutes_core.sdk.node_selector import NodeSelector

_ERRORS = "chutes_core.base.errors"
_HOMES = {
    "Chute": "chutes_core.sdk.chute",
    "Image": "chutes_core.sdk.image",
    "Job": "chutes_core.sdk.job",
    "NodeSelector": "chutes_core.sdk.node_selector",
    "Port": "chutes_core.sdk.job",
    "ChainError": _ERRORS,
    "ChutesError": _ERRORS,
    "Conflict": _ERRORS,
    "Denied": _ERRORS,
    "Exhausted": _ERRORS,
    "Forbidden": _ERRORS,
    "Invalid": _ERRORS,
    "NotFound": _ERRORS,
    "PaymentRequired": _ERRORS,
    "ProtocolError": _ERRORS,
    "TimedOut": _ERRORS,
    "TooLarge": _ERRORS,
    "Unauthenticated": _ERRORS,
    "Unavailable": _ERRORS,
}

__all__ = [
    "ChainError",
    "Chute",
    "ChutesError",
    "Conflict",
    "Denied",
    "Exhausted",
    "Forbidden",
    "Image",
    "Invalid",
    "Job",
    "NodeSelector",
    "NotFound",
    "PaymentRequired",
    "Port",
    "ProtocolError",
    "TimedOut",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
