"""The base of every role's settings: one frozen object, read once at the entrance.

Invariant: an unknown variable with the role's own prefix is an error that names the closest known
one, so that a typing mistake never silently means "default".
"""

import difflib
import os
from collections.abc import Mapping
from typing import Any

from pydantic_settings import BaseSettings, SettingsConfigDict
from typing_extensions import Self

from chutes_core.base.errors import Invalid


class RoleSettings(BaseSettings):
    """Settings of one role; subclasses set ``model_config`` with their ``env_prefix``."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read the environment, then apply overrides (command-line options that were given).

        Raises:
            Invalid: ``unknown_setting`` with the closest known name.
        """
        _refuse_unknown(cls, os.environ if environ is None else environ)
        return cls(**{name: value for name, value in overrides.items() if value is not None})


def _refuse_unknown(cls: type[RoleSettings], environ: Mapping[str, str]) -> None:
    prefix = cls.model_config.get("env_prefix", "")
    known = {f"{prefix}{name}".upper() for name in cls.model_fields}
    for variable in environ:
        if prefix and variable.upper().startswith(prefix.upper()) and variable.upper() not in known:
            closest = difflib.get_close_matches(variable.upper(), known, n=1)
            raise Invalid(
                "unknown_setting",
                f"{variable} is not a setting of this role",
                hint=f"did you mean {closest[0]}?" if closest else f"known: {sorted(known)}",
            )
