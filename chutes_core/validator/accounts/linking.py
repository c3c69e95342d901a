"""Roles by link, and coldkeys: what a signature of another key gives an account.

Invariants: a signature over a text without a nonce is accepted once for all times; a chain hotkey
belongs to one account; a link gives its roles only while the chain says that the hotkey validates
or owns the subnet; a registered coldkey is a claim until it has signed or owns the hotkey on chain,
and only a proven one recovers an account.
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Protocol

from bittensor_core import CRYPTO_SR25519
from bittensor_core import verify as verify_signature

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from chutes_core.validator.domain.accounts import DEVELOPER, FREE, Account
from chutes_core.validator.domain.rights import Link, LinkKind
from chutes_core.validator.store.database import Store

MAX_PROOF_AGE_S = 86_400
_MARKER_BIT = 0x80  # schnorrkel's mark in the last byte: with and without it are one signature

RolesChanged = Callable[[str, frozenset[str]], None]


class ChainRoles(Protocol):
    """What the last finalized picture says of a hotkey."""

    def has_permit(self, hotkey_ss58: str) -> bool:
        """Tell whether it holds a validator permit on the subnet."""
        ...

    def owns_subnet(self, hotkey_ss58: str) -> bool:
        """Tell whether it is the subnet owner's."""
        ...

    def owner_of(self, hotkey_ss58: str) -> str | None:
        """Return the coldkey that owns a hotkey on chain; asks the node."""
        ...


class Linking:
    """Links of hotkeys, proofs of coldkeys, recovery.

    Args:
        store: links, used signatures, roles.
        clock: expiries are compared with it.
        chain: what the chain says.
        validator_ss58: this validator, so that a proof for another is worth nothing here.
        roles_changed: told, inside the transaction, which roles an account has now.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        chain: ChainRoles,
        *,
        validator_ss58: str,
        roles_changed: RolesChanged,
    ) -> None:
        self._store = store
        self._clock = clock
        self._chain = chain
        self._validator_ss58 = validator_ss58
        self._roles_changed = roles_changed

    def link(self, account: Account, kind: LinkKind, hotkey_ss58: str, signature: str) -> Link:
        """Link a chain hotkey that signed ``{hotkey}:{username}``.

        Raises:
            Unauthenticated: ``bad_signature``.
            Forbidden: ``no_validator_permit`` or ``not_subnet_owner``.
            Conflict: ``hotkey_linked`` or ``signature_used``.
        """
        digest = _checked(f"{hotkey_ss58}:{account.username}", signature, hotkey_ss58)
        if not self._holds(kind, hotkey_ss58):
            code = "no_validator_permit" if kind == "validator" else "not_subnet_owner"
            raise Forbidden(code, "the chain does not give this hotkey that role", hint=_WAIT)
        link = Link(hotkey_ss58, account.user_id, kind, self._clock.now_s())
        with self._store.transaction(durable=True):
            self._store.links.insert(link)
            self._use(digest)
            self._grant(link, valid=True)
        return link

    def unlink(self, account: Account, hotkey_ss58: str) -> None:
        """End a link; its roles go at once.

        Raises:
            NotFound: ``no_such_link``.
        """
        with self._store.transaction(durable=True):
            link = self._store.links.get(hotkey_ss58)
            if link is None or link.user_id != account.user_id:
                raise NotFound("no_such_link", "this hotkey is not linked to the account")
            self._grant(link, valid=False)
            self._store.links.delete(hotkey_ss58)

    def of(self, account: Account) -> tuple[Link, ...]:
        """Return an account's links."""
        return self._store.links.of_user(account.user_id)

    def recheck(self) -> int:
        """Give or take roles by what the chain says now; return how many links changed."""
        changed = 0
        for link in self._store.links.all():
            valid = self._holds(link.kind, link.hotkey_ss58)
            if valid != link.valid:
                with self._store.transaction(durable=True):
                    self._store.links.set_valid(link.hotkey_ss58, valid=valid)
                    self._grant(link, valid=valid)
                changed += 1
        return changed

    def proof_text(self, account: Account, coldkey_ss58: str, expiry_s: int) -> str:
        """Return what a coldkey signs to prove itself."""
        parts = (self._validator_ss58, account.user_id, coldkey_ss58, str(expiry_s))
        return "|".join(("chutes-coldkey/1", *parts))

    def recovery_text(
        self, account: Account, coldkey_ss58: str, hotkey_ss58: str, expiry_s: int
    ) -> str:
        """Return what a proven coldkey signs to give the account another hotkey."""
        parts = (self._validator_ss58, account.user_id, coldkey_ss58, hotkey_ss58, str(expiry_s))
        return "|".join(("chutes-recover/1", *parts))

    def prove(self, account: Account, coldkey_ss58: str, expiry_s: int, signature: str) -> None:
        """Prove the account's coldkey by its signature; it may correct an unproven claim.

        Raises:
            Conflict: ``coldkey_proven`` (another one is proven) or ``signature_used``.
            Invalid: ``proof_expired``. Unauthenticated: ``bad_signature``.
        """
        self._fresh(expiry_s)
        text = self.proof_text(account, coldkey_ss58, expiry_s)
        digest = _checked(text, signature, coldkey_ss58)
        self._keep_proof(account, coldkey_ss58, "signature", digest)

    def prove_by_chain(self, account: Account) -> str:
        """Prove the coldkey that owns the account's hotkey on chain, and return it.

        Raises:
            Conflict: ``hotkey_not_owned`` or ``coldkey_proven``.
        """
        owner = self._chain.owner_of(account.hotkey_ss58)
        if owner is None:
            raise Conflict(
                "hotkey_not_owned",
                "no coldkey owns this hotkey on the chain",
                hint="prove the coldkey by its signature: chutes link --coldkey",
            )
        self._keep_proof(account, owner, "chain", None)
        return owner

    def recover(
        self, id_or_name: str, hotkey_ss58: str, coldkey_ss58: str, expiry_s: int, signature: str
    ) -> tuple[Account, str]:
        """Give an account another hotkey, whose signature was verified; all its keys end.

        Returns:
            The account and its new fingerprint, shown this once.

        Raises:
            Forbidden: ``not_recoverable``, whatever is missing: account, proof, or the right key.
            Conflict: ``hotkey_taken`` or ``signature_used``.
            Invalid: ``proof_expired``. Unauthenticated: ``bad_signature``.
        """
        self._fresh(expiry_s)
        rows = self._store.accounts
        account = rows.get(id_or_name) or rows.by_username(id_or_name)
        proven = account is not None and bool(account.coldkey_proven)
        if account is None or not proven or account.coldkey_ss58 != coldkey_ss58:
            raise Forbidden(
                "not_recoverable",
                "this coldkey is not the proven coldkey of that account",
                hint="only a coldkey that was proven before recovers an account",
            )
        text = self.recovery_text(account, coldkey_ss58, hotkey_ss58, expiry_s)
        digest = _checked(text, signature, coldkey_ss58)
        fingerprint = secrets.token_hex(24)
        hashed = hashlib.sha256(fingerprint.encode()).hexdigest()
        with self._store.transaction(durable=True):
            self._use(digest)
            rows.recover(account.user_id, hotkey_ss58, hashed)
            for key in self._store.keys.by_owner(account.user_id):
                self._store.keys.revoke(key.key_id, self._clock.now_s())
        recovered = rows.get(account.user_id)
        assert recovered is not None
        return recovered, fingerprint

    def _holds(self, kind: LinkKind, hotkey_ss58: str) -> bool:
        if kind == "validator":
            return self._chain.has_permit(hotkey_ss58)
        return self._chain.owns_subnet(hotkey_ss58)

    def _grant(self, link: Link, *, valid: bool) -> None:
        roles = {DEVELOPER, FREE} if valid else set()
        has = self._store.accounts.set_grants(link.user_id, link.source, roles)
        self._roles_changed(link.user_id, has)

    def _use(self, digest: str) -> None:
        if not self._store.signatures.use(digest, self._clock.now_s()):
            raise Conflict("signature_used", "this signature was used before", hint="sign anew")

    def _fresh(self, expiry_s: int) -> None:
        now_s = self._clock.now_s()
        if not now_s < expiry_s <= now_s + MAX_PROOF_AGE_S:
            raise Invalid(
                "proof_expired",
                "the proof has expired, or holds for longer than a day",
                hint=f"sign anew; this server's clock says {now_s}",
            )

    def _keep_proof(
        self, account: Account, coldkey_ss58: str, how: str, digest: str | None
    ) -> None:
        with self._store.transaction(durable=True):
            now = self._store.accounts.get(account.user_id)
            assert now is not None
            if now.coldkey_proven and now.coldkey_ss58 != coldkey_ss58:
                raise Conflict(
                    "coldkey_proven",
                    "another coldkey of this account is proven",
                    hint="a proven coldkey is never replaced",
                )
            if digest is not None:
                self._use(digest)
            self._store.accounts.prove_coldkey(account.user_id, coldkey_ss58, how)


_WAIT = "the last finalized block decides; permits change at the end of an epoch"


def _checked(text: str, signature: str, signer_ss58: str) -> str:
    """Check a signature and return what it is remembered by.

    Raises:
        Unauthenticated: ``bad_signature``.
    """
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
        valid = verify_signature(text.encode(), raw, signer_ss58, CRYPTO_SR25519)
    except ValueError:
        valid = False
    if not valid:
        raise Unauthenticated(
            "bad_signature", "the signature does not fit", hint=f"the text to sign is: {text[:300]}"
        )
    return hashlib.sha256(raw[:-1] + bytes([raw[-1] & ~_MARKER_BIT & 0xFF])).hexdigest()
