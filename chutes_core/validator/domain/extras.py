"""Records beside chutes: secrets, reports, logos. Invariant: no value of a secret is in one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Secret:
    """One variable of one chute; its sealed value is a field of the store alone.

    ``purpose`` is the chute as its owner named it, ``chute_id`` whom the value is handed to.
    """

    secret_id: str
    user_id: str
    chute_id: str
    purpose: str
    key: str
    created_at_s: int


@dataclass(frozen=True)
class Report:
    """A caller's complaint about one of its invocations."""

    invocation_id: str
    user_id: str
    chute_id: str
    launch_id: str
    reason: str
    at_s: int


@dataclass(frozen=True)
class Logo:
    """A picture beside an image or a chute; its bytes are a blob."""

    logo_id: str
    user_id: str
    sha256: str
    content_type: str
    created_at_s: int
