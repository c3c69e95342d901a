"""What goes to an instance over its sealed connection once it is attested, and what it answers.

Payloads of WARM, START, STARTED, RENEW, STOP and ERROR frames (wire/frames.py).
"""

from pydantic import Field

from chutes_core.wire.control import Handshake
from chutes_core.wire.model import HexKey, Message, RecordId

MAX_CODE_BYTES = 512 * 1024


class Warm(Message):
    """Answer to HELLO: the provers are warm.

    ``devices``: per GPU, in order, the body of its prover's WARM message as it came (hex of the
    canonical bytes of ``graval.messages.Warm``: device information and rows it can hold).
    """

    handshake: Handshake
    instance_public_key: HexKey
    devices: tuple[str, ...] = Field(max_length=64)


class StartOrder(Message):
    """Code, environment and secrets; sent only under the keys of generation 1."""

    launch_id: RecordId
    chute_id: RecordId
    version: RecordId
    filename: str = Field(max_length=200)
    ref_str: str = Field(max_length=200)
    code: str = Field(max_length=MAX_CODE_BYTES)
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)
    concurrency: int = Field(default=1, ge=1, le=1024)
    lease_until_s: int


class CordRoute(Message):
    """One route that the started chute serves."""

    function: str
    path: str
    method: str
    public_api_path: str | None = None
    public_api_method: str | None = None
    stream: bool = False


class Started(Message):
    """The chute's start-up hooks have run and these cords answer."""

    cords: tuple[CordRoute, ...]
    startup_ms: int


class Renewal(Message):
    """The validator prolongs the instance's launch lease until this Unix time."""

    lease_until_s: int


class StopOrder(Message):
    """The instance ends: no new calls, running ones may finish within the grace time."""

    reason: str = Field(max_length=64)
    grace_s: int = Field(ge=0, le=3600)


class FrameError(Message):
    """An ERROR frame: the code and text of what failed at the other end."""

    code: str = Field(max_length=64)
    message: str = Field(max_length=4000)
    hint: str = Field(default="", max_length=1000)
