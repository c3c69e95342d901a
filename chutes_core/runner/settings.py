"""The runner's settings: exactly what the miner puts into its environment.

Plain pydantic, for a chute's image carries no pydantic-settings. Invariant: an unknown
``CHUTES_RUNNER_`` variable is an error that names the closest known one.
"""

import difflib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from typing_extensions import Self

from chutes_core.base.errors import Invalid
from chutes_core.runner.orders import describe
from chutes_core.wire.model import GpuUuid, HexKey, RecordId

PREFIX = "CHUTES_RUNNER_"


class GpuSlot(BaseModel):
    """One GPU of this instance; ``declare`` names the class that a CPU stands in for.

    An ``idle`` one belongs to the host: it proves beside the instance's own and serves no chute.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0, lt=64)
    uuid: GpuUuid
    declare: str | None = Field(default=None, max_length=40)
    idle: bool = False


def _from_json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


class RunnerSettings(BaseModel):
    """Settings of one instance, read once from ``CHUTES_RUNNER_*``.

    Args:
        launch_id: of the LaunchGrant.
        validator_public_key: the validator's X25519 launch key, hex.
        host: bind address.
        port: bind port; 0 takes any free one.
        gpus: JSON list of `GpuSlot`, in the order that LEG frames count them.
        graval_python: interpreter that runs the provers.
        ready_file: also receives the ready line.
        first_lease_s: the process ends when START has not come within this time.
        max_connections: open connections at once; more are closed unread.
        prover_warm_s: how long a prover may take to warm up.
        prover_leg_s: how long a prover may take for one leg.
        shutdown_hooks_s: how long the chute's shutdown hooks may take.
        sigterm_grace_s: how long running calls may go on after SIGTERM.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    launch_id: RecordId
    validator_public_key: HexKey
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    gpus: Annotated[
        tuple[GpuSlot, ...], BeforeValidator(_from_json), Field(min_length=1, max_length=64)
    ]
    graval_python: str = sys.executable
    ready_file: Path | None = None
    first_lease_s: float = Field(default=900.0, gt=0)
    max_connections: int = Field(default=2048, ge=1)
    prover_warm_s: float = Field(default=180.0, gt=0)
    prover_leg_s: float = Field(default=120.0, gt=0)
    shutdown_hooks_s: float = Field(default=30.0, gt=0)
    sigterm_grace_s: float = Field(default=3.0, ge=0)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; an empty variable counts as not given.

        Raises:
            Invalid: ``unknown_setting`` or ``bad_setting``.
        """
        values: dict[str, Any] = {}
        for variable, value in environ.items():
            if not variable.startswith(PREFIX):
                continue
            name = variable[len(PREFIX) :].lower()
            if name not in cls.model_fields:
                raise _unknown(variable, cls)
            if value:
                values[name] = value
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise Invalid("bad_setting", f"{PREFIX}…: {describe(error)}") from error


def _unknown(variable: str, model: type[BaseModel]) -> Invalid:
    known = sorted(PREFIX + name.upper() for name in model.model_fields)
    closest = difflib.get_close_matches(variable, known, n=1)
    hint = f"did you mean {closest[0]}?" if closest else f"known: {', '.join(known)}"
    return Invalid("unknown_setting", f"{variable} is not a setting of the runner", hint=hint)
