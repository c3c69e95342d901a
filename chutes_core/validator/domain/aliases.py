"""An alias: a name under which several chutes answer, each where those before it cannot.

Invariant: it names chutes by their ids, never another alias, so it leads to a chute in one step.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """One account's alias; ``chute_ids`` in the order in which they are asked."""

    user_id: str
    username: str
    name: str
    slug: str
    chute_ids: tuple[str, ...]
    created_at_s: int
    updated_at_s: int

    @property
    def model(self) -> str:
        """Return what everybody may write as the ``model`` of a call."""
        return f"{self.username}/{self.name}"
