"""Chutes as developers deploy them: checked, versioned, shared, deleted.

Invariant: everything is checked before anything is stored; a version is fixed by image and code;
a chute is visible to its owner, to whom it is shared with, and to all when public; a slug names one
live chute.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from loguru import logger

from chutes_core.base import ids
from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict, Forbidden, NotFound, PaymentRequired
from chutes_core.base.units import format_tao
from chutes_core.validator.catalog.rules import ChuteDraft, check_draft
from chutes_core.validator.domain.accounts import DEVELOPER, Account, ApiKey
from chutes_core.validator.domain.chutes import Chute, Selector
from chutes_core.validator.domain.images import Image
from chutes_core.validator.domain.money import REVENUE, Entry, Posting, user_credit
from chutes_core.validator.domain.spending import Spend, Spending, Unwatched, key_purse
from chutes_core.validator.store.database import Store

FeeOf = Callable[[Selector], int]


def no_fee(selector: Selector) -> int:
    """Charge nothing for a deployment: the validator's default."""
    del selector
    return 0


@dataclass(frozen=True)
class Deployed:
    """The chute as it stands after a deployment, and what the deployment cost."""

    chute: Chute
    fee_rao: int
    new: bool


class Chutes:
    """All that concerns chutes.

    Args:
        store: where they are kept.
        clock: for their times.
        fee_rao: what a new chute costs; a new version of a chute costs nothing.
        require_developer: only accounts with the developer role may deploy.
        spending: holds a fee against the owner's running calls.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        fee_rao: FeeOf = no_fee,
        require_developer: bool = False,
        spending: Spending = Unwatched,
    ) -> None:
        self._store = store
        self._clock = clock
        self._fee_rao = fee_rao
        self._require_developer = require_developer
        self._spending = spending

    def deploy(
        self, owner: Account, draft: ChuteDraft, *, accept_fee: bool, key: ApiKey | None = None
    ) -> Deployed:
        """Deploy a chute or its next version; the same image and code again keep the version.

        ``key`` is the one that asks: the fee counts against its budget.

        Raises:
            Forbidden: ``not_developer``.
            Invalid: the draft breaks a rule (catalog/rules).
            NotFound: ``no_such_image``.
            Conflict: ``image_not_built``, or ``name_taken`` by an alias of the owner's, or by
                another chute whose name differs only in case.
            PaymentRequired: ``fee_not_accepted`` (its facts name the fee),
                ``insufficient_balance`` or ``key_budget_spent``.
        """
        if self._require_developer and DEVELOPER not in owner.roles:
            raise Forbidden("not_developer", "only developers may deploy chutes")
        check_draft(draft)
        with self._spending() as spend, self._store.transaction():
            image = self._image(owner, draft.image)
            chute_id = ids.chute_id(owner.username, draft.name)
            known = self._store.chutes.get(chute_id)
            self._check_name(owner, draft.name, chute_id)
            fee_rao = 0 if known is not None else self._fee_rao(draft.selector)
            chute = self._chute(owner, draft, image, known)
            if fee_rao > 0:
                self._charge(spend, owner, chute, fee_rao, accept_fee=accept_fee, key=key)
            self._store.chutes.save(chute)
        logger.bind(chute=chute.slug, version=chute.version, fee_rao=fee_rao).info("Chute deployed")
        return Deployed(chute, fee_rao, known is None)

    def list(self, viewer: Account, *, include_public: bool) -> tuple[Chute, ...]:
        """Return what the viewer may see, newest first."""
        return self._store.chutes.visible_to(viewer.user_id, include_public=include_public)

    def get(self, viewer: Account, reference: str) -> Chute:
        """Return a chute by id, name of the viewer's own, user/name, or slug.

        Raises:
            NotFound: ``no_such_chute``, also where the viewer may not see it.
        """
        for chute in self._candidates(viewer, reference):
            if chute is not None and visible(chute, viewer):
                return chute
        raise NotFound("no_such_chute", f"there is no chute {reference[:200]}")

    def delete(self, owner: Account, reference: str) -> Chute:
        """Delete a chute; its instances drain and its slug is free again.

        Raises:
            NotFound: ``no_such_chute``.
            Forbidden: ``not_owner``.
        """
        chute = self._own(owner, reference)
        if not self._store.chutes.delete(chute.chute_id, self._clock.now_s()):
            raise NotFound("no_such_chute", f"there is no chute {reference[:200]}")
        logger.bind(chute=chute.slug).info("Chute deleted")
        return chute

    def share(self, owner: Account, reference: str, user: str) -> Chute:
        """Let another user (id or name) see and call a chute.

        Raises:
            NotFound: ``no_such_chute`` or ``no_such_user``.
            Forbidden: ``not_owner``.
        """
        chute = self._own(owner, reference)
        self._store.chutes.share(chute.chute_id, self._user(user).user_id)
        return chute

    def unshare(self, owner: Account, reference: str, user: str) -> Chute:
        """Take the right back.

        Raises:
            NotFound: ``no_such_chute`` or ``no_such_user``.
            Forbidden: ``not_owner``.
        """
        chute = self._own(owner, reference)
        self._store.chutes.unshare(chute.chute_id, self._user(user).user_id)
        return chute

    def _image(self, owner: Account, reference: str) -> Image:
        full, _, tag = reference.rpartition(":")
        username, _, name = full.rpartition("/")
        rows = self._store.images
        image = rows.by_name(username or owner.username, name, tag) if full else rows.get(reference)
        if image is None or not (image.public or image.user_id == owner.user_id):
            raise NotFound(
                "no_such_image", f"there is no image {reference[:200]}", hint="run: chutes build"
            )
        if image.state != "built":
            raise Conflict("image_not_built", f"the image is not built ({image.status})")
        return image

    def _chute(self, owner: Account, draft: ChuteDraft, image: Image, known: Chute | None) -> Chute:
        now_s = self._clock.now_s()
        chute_id = ids.chute_id(owner.username, draft.name)
        chute = Chute(
            chute_id=chute_id,
            version=ids.chute_version(image.image_id, draft.code),
            user_id=owner.user_id,
            username=owner.username,
            name=draft.name,
            slug=known.slug if known is not None else self._slug(owner, draft.name, chute_id),
            tagline=draft.tagline,
            readme=draft.readme,
            public=draft.public,
            standard_template=draft.standard_template,
            image_id=image.image_id,
            filename=draft.filename,
            ref_str=draft.ref_str,
            code=draft.code,
            selector=draft.selector,
            cords=draft.cords,
            concurrency=draft.concurrency,
            max_instances=draft.max_instances,
            scaling_threshold_percent=draft.scaling_threshold_percent,
            shutdown_after_s=draft.shutdown_after_s,
            created_at_s=now_s,
            updated_at_s=now_s,
            allow_external_egress=draft.allow_external_egress,
            jobs=draft.jobs,
        )
        if known is None:
            return chute
        return replace(chute, created_at_s=known.created_at_s, shared_with=known.shared_with)

    def _check_name(self, owner: Account, name: str, chute_id: str) -> None:
        """Refuse a name by which another of the owner's chutes is found already."""
        other = self._store.chutes.by_name(owner.username, name)
        if other is not None and other.chute_id != chute_id:
            raise Conflict("name_taken", f"you have a chute {other.name} already")
        if self._store.aliases.get(owner.user_id, name.lower()) is not None:
            raise Conflict(
                "name_taken",
                f"you have an alias {name.lower()}",
                hint="choose another name, or delete the alias first: chutes alias delete",
            )

    def _slug(self, owner: Account, name: str, chute_id: str) -> str:
        slug = ids.slug(owner.username, name)
        if self._is_free(slug):
            return slug
        for length in (6, 12, 32):
            suffix = chute_id.replace("-", "")[:length]
            longer = f"{slug[: ids.MAX_SLUG_LENGTH - length - 1].rstrip('-')}-{suffix}"
            if self._is_free(longer):
                return longer
        raise Conflict("slug_taken", "no free slug for this chute", hint="choose another name")

    def _is_free(self, slug: str) -> bool:
        rows = self._store
        return rows.chutes.by_slug(slug) is None and rows.aliases.by_slug(slug) is None

    def _charge(
        self,
        spend: Spend,
        owner: Account,
        chute: Chute,
        fee_rao: int,
        *,
        accept_fee: bool,
        key: ApiKey | None,
    ) -> None:
        if not accept_fee:
            raise PaymentRequired(
                "fee_not_accepted",
                f"deploying this chute costs {format_tao(fee_rao)} TAO",
                hint="deploy with --accept-fee",
                fee_rao=fee_rao,
            )
        if key is not None:
            self._spend(spend, key, fee_rao)
        account, ledger = user_credit(owner.user_id), self._store.ledger
        held_rao = spend.hold(owner.user_id, fee_rao)
        if ledger.balance(account) - held_rao < fee_rao:
            raise PaymentRequired(
                "insufficient_balance",
                f"the deploy fee is {format_tao(fee_rao)} TAO",
                hint=f"pay to {owner.payment_address}, or let running calls end",
            )
        ledger.apply(
            Entry(
                key=f"deploy:{chute.chute_id}:{ids.new_id()}",
                kind="deploy_fee",
                at_s=chute.created_at_s,
                postings=(Posting(account, -fee_rao), Posting(REVENUE, fee_rao)),
            )
        )
        spend.written(ledger.last_entry_id())

    def _spend(self, spend: Spend, key: ApiKey, fee_rao: int) -> None:
        held_rao = spend.hold(key_purse(key.key_id), fee_rao)
        now = self._store.keys.get(key.key_id) or key  # calls may have spent since it came in
        left_rao = now.left_rao()
        if left_rao is not None and left_rao - held_rao < fee_rao:
            raise PaymentRequired(
                "key_budget_spent",
                f"the deploy fee is {format_tao(fee_rao)} TAO, this key's budget leaves "
                f"{format_tao(max(0, left_rao - held_rao))} TAO",
            )
        self._store.keys.spend(key.key_id, fee_rao)

    def _candidates(self, viewer: Account, reference: str) -> tuple[Chute | None, ...]:
        rows = self._store.chutes
        username, _, name = reference.partition("/")
        return (
            rows.get(reference),
            rows.by_name(viewer.username, reference),
            rows.by_name(username, name) if name else None,
            rows.by_slug(reference),
        )

    def _own(self, owner: Account, reference: str) -> Chute:
        chute = self.get(owner, reference)
        if chute.user_id != owner.user_id:
            raise Forbidden("not_owner", "the chute belongs to another user")
        return chute

    def _user(self, reference: str) -> Account:
        rows = self._store.accounts
        account = rows.get(reference) or rows.by_username(reference)
        if account is None:
            raise NotFound("no_such_user", f"there is no user {reference[:200]}")
        return account


def visible(chute: Chute, viewer: Account) -> bool:
    """Tell whether an account may see and call a chute."""
    return chute.public or viewer.user_id == chute.user_id or viewer.user_id in chute.shared_with
