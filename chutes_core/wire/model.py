"""The base of every message model. Invariant: frozen, and an unknown field is an error."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Hotkey = Annotated[str, Field(min_length=40, max_length=64)]
HexKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RecordId = Annotated[
    str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
]
GpuUuid = Annotated[str, Field(max_length=80, pattern=r"^[A-Za-z0-9:._-]+$")]


class Message(BaseModel):
    """A message between processes of ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")
