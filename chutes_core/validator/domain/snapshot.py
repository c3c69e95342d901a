"""What the gateway may see: a read-only picture, built outside the request path, swapped whole.

Invariant: the gateway decides from one Snapshot only, and never asks the store. Everything in it is
immutable; roots are the only secrets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.chutes import Cord
from chutes_core.validator.domain.money import Rate


@dataclass(frozen=True)
class FreeCalls:
    """What is left of an account's free calls of a day, which ends at ``until_s`` (Unix time)."""

    left: int
    per_day: int
    until_s: int


@dataclass(frozen=True)
class PayerView:
    """An account as admission sees it.

    ``spendable_rao`` is the ledger's balance with every invocation of worker w up to
    ``Snapshot.drained[w]`` already taken off, and so are the ``free_calls`` of an account that is
    ``free``; None there sets no bound.
    """

    user_id: str
    coldkey_ss58: str
    spendable_rao: int
    free: bool = False
    free_calls: FreeCalls | None = None


@dataclass(frozen=True)
class ChuteView:
    """A chute as front and admission see it."""

    chute_id: str
    slug: str
    name: str
    owner_id: str
    public: bool
    shared_with: frozenset[str]
    cords: tuple[Cord, ...]
    rate: Rate
    concurrency: int
    standard_template: str | None
    cold_reason: str = ""


@dataclass(frozen=True)
class InstanceView:
    """An active instance; ``root`` is its proven root (generation 1), ``ticket`` the relay's."""

    launch_id: str
    chute_id: str
    host: str
    port: int
    ticket: bytes = field(repr=False)
    root: bytes = field(repr=False)
    concurrency: int = 1


@dataclass(frozen=True)
class AliasView:
    """An alias as admission sees it: the chutes that are asked, in their order."""

    owner_id: str
    name: str
    chute_ids: tuple[str, ...]


@dataclass(frozen=True)
class Snapshot:
    """The whole picture. Keys are found by the SHA-256 (hex) of the presented secret part.

    Aliases are found by slug, by user/name, and by `own_alias` for their owner.

    ``ledger_entry`` is the id of the ledger's newest entry that the balances show.
    """

    keys: Mapping[str, ApiKey] = field(default_factory=dict)
    payers: Mapping[str, PayerView] = field(default_factory=dict)
    chutes: Mapping[str, ChuteView] = field(default_factory=dict)
    slugs: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, AliasView] = field(default_factory=dict)
    instances: Mapping[str, tuple[InstanceView, ...]] = field(default_factory=dict)
    drained: Mapping[str, int] = field(default_factory=dict)
    ledger_entry: int = 0


def own_alias(user_id: str, name: str) -> str:
    """Return the text under which an owner's alias is found by its plain name.

    Neither a slug nor a user/name has a colon.
    """
    return f"{user_id}:{name}"
