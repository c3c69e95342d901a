"""Builds the gateway's picture from the store: keys, payers, chutes, active instances.

Path: any change -> here -> Gateway.swap. Runs in a thread. Invariant: balances, `drained` and
`ledger_entry` are read in one transaction, so nothing is ever counted twice or not at all against a
payer.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from dataclasses import replace

from chutes_core.validator.domain.accounts import FREE, Account
from chutes_core.validator.domain.aliases import Alias
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.launches import REASON_TEXT, Launch, LaunchState, Reason
from chutes_core.validator.domain.money import Rate, user_credit
from chutes_core.validator.domain.snapshot import (
    AliasView,
    ChuteView,
    FreeCalls,
    InstanceView,
    PayerView,
    Snapshot,
    own_alias,
)
from chutes_core.validator.launches.quota import Quota, free_calls
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.store.database import Store

RateOf = Callable[[Chute], Rate]


def build(
    store: Store,
    vault: Vault,
    rate_of: RateOf,
    paused: Container[str] = frozenset(),
    *,
    quota: Quota | None = None,
) -> Snapshot:
    """Return a new Snapshot of everything that calls are decided by.

    Without a ``quota`` free calls are not counted.
    ``paused`` launches are left out: their GPUs are being challenged; and so is who runs a job.
    """
    with store.transaction():
        accounts = store.accounts.all()
        keys = store.keys.all_live()
        chutes = store.chutes.all_live()
        aliases = store.aliases.all()
        jobs = store.jobs.claimed()
        launches = [one for one in store.launches.open() if one.launch_id not in jobs]
        drained, ledger_entry = store.invocations.drained(), store.ledger.last_entry_id()
        left = free_calls(store, quota, accounts)
        payers = {one.user_id: _payer(store, one, left.get(one.user_id)) for one in accounts}
        active = [
            launch
            for launch in launches
            if launch.state is LaunchState.ACTIVE and launch.launch_id not in paused
        ]
        chutes = tuple(as_served(store, chute, active) for chute in chutes)
        instances = _instances(store, vault, active, {chute.chute_id: chute for chute in chutes})
        cold = {chute.chute_id: _cold_reason(store, chute, launches) for chute in chutes}
    views = {
        chute.chute_id: _chute(chute, rate_of(chute), cold[chute.chute_id]) for chute in chutes
    }
    return Snapshot(
        keys={key.secret_sha256: key for key in keys},
        payers=payers,
        chutes=views,
        slugs={view.slug: chute_id for chute_id, view in views.items()},
        models=_models(chutes),
        aliases=_aliases(aliases),
        instances=instances,
        drained=drained,
        ledger_entry=ledger_entry,
    )


def as_served(store: Store, chute: Chute, active: Iterable[Launch]) -> Chute:
    """Return a chute with the cords and slots of the version that answers its calls.

    That is the current one as soon as one of its instances is active (or none of any version is);
    until then the newest that still serves.
    """
    serving = [one.version for one in active if one.chute_id == chute.chute_id]
    if not serving or chute.version in serving:
        return chute
    version = store.chutes.version(chute.chute_id, serving[-1])
    if version is None or version.cords is None:
        return chute
    return replace(
        chute,
        version=version.version,
        cords=version.cords,
        concurrency=version.concurrency or chute.concurrency,
    )


def _payer(store: Store, account: Account, left: FreeCalls | None) -> PayerView:
    return PayerView(
        user_id=account.user_id,
        coldkey_ss58=account.coldkey_ss58,
        spendable_rao=store.ledger.balance(user_credit(account.user_id)),
        free=FREE in account.roles,
        free_calls=left,
    )


def _chute(chute: Chute, rate: Rate, cold_reason: str) -> ChuteView:
    return ChuteView(
        chute_id=chute.chute_id,
        slug=chute.slug,
        name=chute.name,
        owner_id=chute.user_id,
        public=chute.public,
        shared_with=chute.shared_with,
        cords=chute.cords,
        rate=rate,
        concurrency=chute.concurrency,
        standard_template=chute.standard_template,
        cold_reason=cold_reason,
    )


def _instances(
    store: Store, vault: Vault, active: Iterable[Launch], chutes: dict[str, Chute]
) -> dict[str, tuple[InstanceView, ...]]:
    found: dict[str, list[InstanceView]] = defaultdict(list)
    for launch in active:
        chute = chutes.get(launch.chute_id)
        sealed = store.launches.secrets(launch.launch_id)
        if chute is None or sealed.root is None:
            continue
        concurrency = _slots(store, chute, launch)
        if not concurrency:
            continue
        found[launch.chute_id].append(
            InstanceView(
                launch_id=launch.launch_id,
                chute_id=launch.chute_id,
                host=launch.relay_host,
                port=launch.relay_port,
                ticket=vault.reveal(launch.launch_id, "ticket", sealed.ticket),
                root=vault.reveal(launch.launch_id, "root", sealed.root),
                concurrency=concurrency,
            )
        )
    return {chute_id: tuple(views) for chute_id, views in found.items()}


def _slots(store: Store, chute: Chute, launch: Launch) -> int:
    """Return how many calls an instance takes at once; 0 where its cords are not those served."""
    if launch.version == chute.version:
        return chute.concurrency
    version = store.chutes.version(chute.chute_id, launch.version)
    if version is None or version.cords is None:
        return chute.concurrency
    return version.concurrency if version.cords == chute.cords else 0


def _cold_reason(store: Store, chute: Chute, launches: Iterable[Launch]) -> str:
    """Say why a chute has no instance, for callers and its developer."""
    states = [launch.state for launch in launches if launch.chute_id == chute.chute_id]
    if LaunchState.ACTIVE in states:
        return ""
    if states:
        return f"an instance is on its way ({states[0].value})"
    last = store.launches.last_gone_of(chute.chute_id)
    if last is None or last.reason in (Reason.SCALED_DOWN, Reason.JOB_ENDED):
        return "no miner with fitting GPUs has taken it up yet"
    return f"the last instance ended: {REASON_TEXT[last.reason]}"


def _models(chutes: Iterable[Chute]) -> dict[str, str]:
    """Map the `model` of OpenAI-style calls to chutes: by full name, slug, or plain name.

    Where two chutes would answer to one text, a public one goes before a private one and an older
    one before a younger one: nobody takes over a model's name by deploying a chute later.
    """
    models: dict[str, str] = {}
    for chute in sorted(chutes, key=lambda one: (not one.public, one.created_at_s, one.chute_id)):
        for text in (f"{chute.username}/{chute.name}", chute.slug, chute.name):
            models.setdefault(text, chute.chute_id)
    return models


def _aliases(aliases: Iterable[Alias]) -> dict[str, AliasView]:
    """Map slug and user/name to aliases, and for their owners alone the plain names.

    So nobody takes over another's plain name, and none is taken over by a chute deployed later.
    """
    found: dict[str, AliasView] = {}
    for one in aliases:
        view = AliasView(one.user_id, one.name, one.chute_ids)
        for text in (one.slug, one.model, own_alias(one.user_id, one.name)):
            found[text] = view
    return found
