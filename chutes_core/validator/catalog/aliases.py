"""Aliases: a name of an account for a list of chutes, of which the first that can answers a call.

Path: `chutes alias set` -> here -> store -> launches/snapshot -> gateway/aliases. Invariants: an
alias leads to chutes alone, so none leads in a circle; its name is no chute's; it gives nobody a
right: who calls by it reaches those of its chutes that they may call by name.
"""

import re
from collections.abc import Sequence

from loguru import logger

from chutes_core.base import ids
from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict, Invalid, NotFound
from chutes_core.validator.catalog.chutes import Chutes
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.aliases import Alias
from chutes_core.validator.store.database import Store

MAX_ALIASES = 100  # of one account
MAX_TARGETS = 8  # of one alias
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Aliases:
    """All that concerns aliases."""

    def __init__(self, store: Store, clock: Clock, chutes: Chutes) -> None:
        self._store = store
        self._clock = clock
        self._chutes = chutes

    def set(self, owner: Account, name: str, references: Sequence[str]) -> Alias:
        """Make an alias, or give one that is there other chutes.

        Args:
            owner: whose it is.
            name: its name; others write ``user/name``.
            references: chutes that the owner may see, by id, name, user/name or slug, in the order
                in which they are asked.

        Raises:
            Invalid: ``bad_alias_name``, ``bad_alias_targets``, ``alias_of_alias`` or
                ``too_many_aliases``.
            NotFound: ``no_such_chute``.
            Conflict: ``name_taken`` or ``slug_taken``: the name would be another chute's too.
        """
        if not _NAME.fullmatch(name) or _UUID.fullmatch(name):
            raise Invalid("bad_alias_name", f"{name[:80]!r} cannot be the name of an alias")
        if not 1 <= len(references) <= MAX_TARGETS:
            raise Invalid("bad_alias_targets", f"an alias has 1 to {MAX_TARGETS} chutes")
        now_s = self._clock.now_s()
        with self._store.transaction():
            chute_ids = tuple(self._target(owner, reference) for reference in references)
            if len(set(chute_ids)) != len(chute_ids):
                raise Invalid("bad_alias_targets", "an alias names each of its chutes once")
            known = self._store.aliases.get(owner.user_id, name)
            slug = ids.slug(owner.username, name)
            if known is None:
                self._check_new(owner, name, slug)
            begun_s = now_s if known is None else known.created_at_s
            alias = Alias(owner.user_id, owner.username, name, slug, chute_ids, begun_s, now_s)
            self._store.aliases.save(alias)
        logger.bind(alias=slug, chutes=len(chute_ids)).info("Alias set")
        return alias

    def list(self, owner: Account) -> tuple[Alias, ...]:
        """Return an account's aliases in order of name."""
        return self._store.aliases.by_owner(owner.user_id)

    def get(self, owner: Account, name: str) -> Alias:
        """Return one of an account's aliases.

        Raises:
            NotFound: ``no_such_alias``.
        """
        alias = self._store.aliases.get(owner.user_id, name)
        if alias is None:
            raise _no_such(name)
        return alias

    def delete(self, owner: Account, name: str) -> None:
        """Forget an alias; its chutes stay.

        Raises:
            NotFound: ``no_such_alias``.
        """
        if not self._store.aliases.delete(owner.user_id, name):
            raise _no_such(name)
        logger.bind(alias=name).info("Alias deleted")

    def _target(self, owner: Account, reference: str) -> str:
        try:
            return self._chutes.get(owner, reference).chute_id
        except NotFound:
            if self._names_alias(owner, reference):
                raise Invalid(
                    "alias_of_alias", f"{reference[:200]} is an alias, and leads to others"
                ) from None
            raise

    def _names_alias(self, owner: Account, reference: str) -> bool:
        """Tell whether a text is an alias' name that the owner may know: their own, or a slug."""
        name = reference.removeprefix(f"{owner.username}/")
        rows = self._store.aliases
        found = rows.get(owner.user_id, name) or rows.by_slug(reference)
        return found is not None and found.user_id == owner.user_id

    def _check_new(self, owner: Account, name: str, slug: str) -> None:
        rows = self._store
        if len(rows.aliases.by_owner(owner.user_id)) >= MAX_ALIASES:
            raise Invalid("too_many_aliases", f"an account has at most {MAX_ALIASES} aliases")
        if rows.chutes.by_name(owner.username, name) is not None:
            raise Conflict("name_taken", f"you have a chute {name} already")
        taken = rows.chutes.by_slug(slug) is not None or rows.aliases.by_slug(slug) is not None
        if taken or any(map(rows.chutes.is_named, (slug, f"{owner.username}/{name}"))):
            raise Conflict(
                "slug_taken",
                f"{slug} is the name of another chute or alias",
                hint="choose another name",
            )


def _no_such(name: str) -> NotFound:
    return NotFound("no_such_alias", f"you have no alias {name[:200]}")
