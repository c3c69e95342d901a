"""May this call be made? Key, rate, chute, scope, cord, in that order, from one snapshot.

Path: front -> admission -> routing. Invariant: a chute that the caller may not see answers exactly
like one that does not exist, and nothing here waits, reads a disk or asks the store.
"""

from collections.abc import Mapping

import orjson

from chutes_core.base.errors import Forbidden, NotFound, Unauthenticated
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.chutes import Cord
from chutes_core.validator.domain.keytext import parse_key, presented_key
from chutes_core.validator.domain.snapshot import (
    AliasView,
    ChuteView,
    PayerView,
    Snapshot,
    own_alias,
)
from chutes_core.validator.gateway.target import Target

_KEY_HINT = "send a key as Authorization: Bearer cpk_...; make one with chutes keys create"


class Admitted:
    """A call that may be made: whose, on which chute, by which cord. Nobody changes it."""

    __slots__ = ("_recorded", "chute", "cord", "key", "path", "payer")

    def __init__(
        self, key: ApiKey, payer: PayerView, chute: ChuteView, cord: Cord, path: str
    ) -> None:
        self.key = key
        self.payer = payer
        self.chute = chute
        self.cord = cord
        self.path = path
        self._recorded = b""

    @property
    def recorded(self) -> bytes:
        """Return a template of the records of such calls (metering fills it in).

        It is the JSON of an Invocation behind its sequence, up to what tells calls apart.
        """
        if not self._recorded:
            self._recorded = self._template()
        return self._recorded

    def _template(self) -> bytes:
        rate = self.chute.rate
        known = {
            "user_id": self.payer.user_id,
            "key_id": self.key.key_id,
            "chute_id": self.chute.chute_id,
        }
        price = {"rate_id": rate.rate_id, "rao_per_hour": rate.rao_per_hour}
        return b',"invocation_id":"%%b",%b,"launch_id":"%%b",%b,' % (
            _members(known),
            _members(price),
        )


def _members(fields: Mapping[str, object]) -> bytes:
    """Return the JSON of fields without its braces, as part of a template."""
    return orjson.dumps(fields)[1:-1].replace(b"%", b"%%")


def authenticate(snapshot: Snapshot, headers: Mapping[str, str], *, now_s: int) -> ApiKey:
    """Return the live key that a request presents.

    Raises:
        Unauthenticated: ``no_key``; ``bad_key``: malformed, unknown or revoked; ``key_expired``.
    """
    text = presented_key(headers.get("authorization"), headers.get("x-api-key"))
    if text is None and "x-chutes-signature" in headers:
        raise Unauthenticated(
            "no_key",
            "calls are made with an API key, a hotkey's signature is for the management calls",
            hint="chutes keys create makes one; set CHUTES_API_KEY",
        )
    if text is None:
        raise Unauthenticated("no_key", "an API key is needed", hint=_KEY_HINT)
    said = parse_key(text)
    key = snapshot.keys.get(said.secret_sha256) if said else None
    if said is None or key is None or key.revoked_at_s is not None:
        raise Unauthenticated("bad_key", "this API key is not valid", hint=_KEY_HINT)
    if (key.key_id, key.user_id) != (said.key_id, said.user_id):
        raise Unauthenticated("bad_key", "this API key is not valid", hint=_KEY_HINT)
    if key.expired(now_s):
        raise Unauthenticated("key_expired", "this API key has expired")
    return key


def admit(
    snapshot: Snapshot, key: ApiKey, target: Target, *, method: str, model: str | None = None
) -> Admitted:
    """Return the call that a key's holder makes of a chute; an alias is none (gateway/aliases).

    Raises:
        NotFound: ``chute_not_found`` or ``cord_not_found``.
        Forbidden: ``scope``: the key's scopes do not cover calls of this chute.
    """
    if alias_of(snapshot, key, target, model) is not None:
        raise no_chute()
    return admit_to(snapshot, key, _chute(snapshot, target, model), target, method=method)


def admit_to(
    snapshot: Snapshot, key: ApiKey, chute: ChuteView | None, target: Target, *, method: str
) -> Admitted:
    """Return the call that a key's holder makes of this chute.

    Raises:
        NotFound: ``chute_not_found`` or ``cord_not_found``.
        Forbidden: ``scope``.
    """
    if chute is None or not visible(chute, key.user_id):
        raise no_chute()
    if not key.allows("chutes", "invoke", chute.chute_id):
        raise Forbidden(
            "scope",
            "this API key may not call this chute",
            hint="make a key with --chute-ids, or with --admin",
        )
    cord = _cord(chute, target, method)
    payer = snapshot.payers.get(key.user_id) or PayerView(key.user_id, "", 0)
    return Admitted(key, payer, chute, cord, target.path)


def alias_of(
    snapshot: Snapshot, key: ApiKey, target: Target, model: str | None
) -> AliasView | None:
    """Return the alias that a request names: an alias' plain name means the caller's own alone."""
    aliases = snapshot.aliases
    if not aliases or target.form == "cord":
        return None
    if target.form == "slug":
        return aliases.get(target.chute)
    name = model or ""
    return aliases.get(own_alias(key.user_id, name)) or aliases.get(name)


def no_chute() -> NotFound:
    """Return what is said of a chute that is not there, or not for this caller."""
    return NotFound(
        "chute_not_found",
        "no such chute, or it is not shared with you",
        hint="chutes chutes list --include-public shows what you may call",
    )


def callable_models(snapshot: Snapshot, key: ApiKey) -> list[str]:
    """Return the models that a key may call, and its holder's aliases of them, in order of name."""

    def may(chute_id: str) -> bool:
        chute = snapshot.chutes.get(chute_id)
        return (
            chute is not None
            and visible(chute, key.user_id)
            and key.allows("chutes", "invoke", chute_id)
        )

    found = {model for model, chute_id in snapshot.models.items() if may(chute_id)}
    for alias in snapshot.aliases.values():
        if alias.owner_id == key.user_id and any(map(may, alias.chute_ids)):
            found.add(alias.name)
    return sorted(found)


def visible(chute: ChuteView, user_id: str) -> bool:
    """Tell whether a user may see a chute: public, their own, or shared with them."""
    return chute.public or chute.owner_id == user_id or user_id in chute.shared_with


def _chute(snapshot: Snapshot, target: Target, model: str | None) -> ChuteView | None:
    if target.form == "slug":
        chute_id = snapshot.slugs.get(target.chute)
    elif target.form == "cord":
        chute_id = target.chute
    else:
        chute_id = snapshot.models.get(model or "")
    return snapshot.chutes.get(chute_id) if chute_id else None


def _cord(chute: ChuteView, target: Target, method: str) -> Cord:
    served = []
    for cord in chute.cords:
        if target.form == "cord":
            named = f"POST {cord.path}"
        elif cord.public_api_path is not None:
            named = f"{(cord.public_api_method or 'POST').upper()} {cord.public_api_path}"
        else:
            continue
        if named == f"{method} {target.path}":
            return cord
        served.append(named)
    raise NotFound(
        "cord_not_found",
        f"{chute.name} serves nothing at {method} {target.path[:200]}",
        hint="it serves " + (", ".join(sorted(served)) if served else "nothing to the public"),
    )
