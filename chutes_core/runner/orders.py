"""Reading the JSON of frames.

Invariant: an error names fields and never shows their values, for orders hold secrets and calls
hold credentials.
"""

from typing import TypeVar

from pydantic import ValidationError

from chutes_core.base.errors import ProtocolError
from chutes_core.wire.frames import Frame
from chutes_core.wire.model import Message

_M = TypeVar("_M", bound=Message)


def parse(model: type[_M], frame: Frame) -> _M:
    """Return a frame's payload as a message.

    Raises:
        ProtocolError: ``bad_order``.
    """
    try:
        return model.model_validate_json(frame.payload)
    except ValidationError as error:
        raise ProtocolError("bad_order", f"{frame.kind.name}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Return which fields are wrong and why, without what they hold."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc']) or 'body'}: {one['msg']}" for one in found[:5]
    )
