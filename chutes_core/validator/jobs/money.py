"""What a run costs: its highest price is held when it is asked for; the rest comes back at its end.

Path: service (hold) and ending (settle) -> store.ledger. Invariant: hold and settlement are each
written once, with the run's own change of state; between the two the money lies in an account of
the run's, so no crash and no restart can lose or double it, and the charge never exceeds the hold.
"""

from chutes_core.base.errors import PaymentRequired
from chutes_core.base.units import format_tao
from chutes_core.validator.domain.accounts import Account, ApiKey
from chutes_core.validator.domain.invocations import Invocation, Outcome
from chutes_core.validator.domain.jobs import JobRun, JobState
from chutes_core.validator.domain.money import REVENUE, Entry, Posting, user_credit
from chutes_core.validator.domain.spending import Spend, key_purse
from chutes_core.validator.store.database import Store

WORKER = "jobs"
"""The worker under whose name ended runs are kept as invocations, which scoring reads."""


def job_account(job_id: str) -> str:
    """Name the ledger account of what is held for a run."""
    return f"job:{job_id}"


def hold(store: Store, spend: Spend, payer: Account, key: ApiKey | None, job: JobRun) -> None:
    """Take a new run's highest price from its payer; inside the transaction that keeps the run.

    Raises:
        PaymentRequired: ``insufficient_balance`` or ``key_budget_spent``.
    """
    rao = job.rate.hold_rao
    price = f"this job may cost {format_tao(rao)} TAO"
    if key is not None and key.budget_rao is not None:
        taken_rao = spend.hold(key_purse(key.key_id), rao)
        left_rao = (store.keys.get(key.key_id) or key).left_rao()
        if left_rao is not None and left_rao - taken_rao < rao:
            raise PaymentRequired("key_budget_spent", f"{price}; this key's budget leaves less")
    taken_rao = spend.hold(payer.user_id, rao)
    if store.ledger.balance(user_credit(payer.user_id)) - taken_rao < rao:
        raise PaymentRequired(
            "insufficient_balance",
            price,
            hint=f"pay to {payer.payment_address}, or give the job a shorter time limit",
        )
    if key is not None:
        store.keys.spend(key.key_id, rao)
    store.ledger.apply(
        Entry(
            key=f"job:{job.job_id}:hold",
            kind="job_hold",
            at_s=job.created_at_s,
            postings=(
                Posting(user_credit(payer.user_id), -rao),
                Posting(job_account(job.job_id), rao),
            ),
        )
    )
    spend.written(store.ledger.last_entry_id())


def settle(store: Store, job: JobRun, charge_rao: int, now_s: int) -> None:
    """Charge an ending run and give the rest back; inside the transaction that ends it."""
    rao = job.rate.hold_rao
    back_rao = rao - charge_rao
    store.ledger.apply(
        Entry(
            key=f"job:{job.job_id}:end",
            kind="job",
            at_s=now_s,
            postings=(
                Posting(job_account(job.job_id), -rao),
                Posting(user_credit(job.user_id), back_rao),
                Posting(REVENUE, charge_rao),
            ),
        )
    )
    if job.key_id:
        store.keys.spend(job.key_id, -back_rao)


def record(store: Store, job: JobRun, state: JobState, usage_us: int) -> None:
    """Keep an ending run as an invocation, so that its miner earns what its user paid."""
    outcome: Outcome = "failed" if state is JobState.FAILED and not usage_us else "ok"
    one = Invocation(
        worker=WORKER,
        sequence=store.jobs.next_sequence(WORKER),
        invocation_id=job.job_id,
        user_id=job.user_id,
        key_id=job.key_id,
        chute_id=job.chute_id,
        launch_id=job.launch_id,
        rate_id=job.rate.rate_id,
        rao_per_hour=job.rate.rao_per_hour,
        hold_rao=job.rate.hold_rao,
        free=False,
        started_at_us=job.started_at_us,
        usage_us=usage_us,
        bytes_in=len(job.arguments),
        bytes_out=sum(file.size_bytes for file in job.files),
        attempts=1,
        status=200 if state is JobState.COMPLETE else 500,
        outcome=outcome,
    )
    store.invocations.insert_many([one])
