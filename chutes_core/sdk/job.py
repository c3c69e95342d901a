"""Job and Port: long-running work with ports of its own, declared beside the cords.

Invariant: declared jobs travel with the chute (shared/PUBLIC_API, POST /chutes/). Starting one is
not served yet, and says so by a typed error instead of doing nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from chutes_core.base.errors import Unavailable


class Port(BaseModel):
    """A port that a job listens on."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-z]+[a-z0-9-]*$", max_length=32)
    port: int = Field(ge=1, le=65535)
    proto: Literal["tcp", "udp", "http"] = "tcp"


@dataclass(frozen=True)
class Job:
    """One job of a chute.

    Args:
        function: the decorated function.
        ports: what it listens on.
        timeout: seconds after which it is stopped, or None.
        upload: whether its output folder is kept.
        ssh: whether its owner may log in.
    """

    function: Callable[..., Any]
    ports: tuple[Port, ...] = ()
    timeout: int | None = None
    upload: bool = True
    ssh: bool = False

    @property
    def name(self) -> str:
        """Return the function's name."""
        return self.function.__name__

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Say that jobs are not run yet."""
        raise Unavailable(
            "jobs_not_served",
            f"job {self.name!r} is declared, but this network does not run jobs yet",
            hint="put the work into a cord, or into an on_startup hook",
        )

    def to_api(self) -> dict[str, Any]:
        """Return the job as POST /chutes/ takes it."""
        ports = [port.model_dump() for port in self.ports]
        return {
            "name": self.name,
            "ports": ports,
            "timeout": self.timeout,
            "upload": self.upload,
        }
