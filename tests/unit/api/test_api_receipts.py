from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest
from bittensor_core import Keypair
from fastapi import FastAPI

from chutes_core.validator.api.errors import install_errors
from chutes_core.validator.api.routes import miner
from chutes_core.validator.billing.receipts import MAX_RECEIPTS, Receipts, Sealer
from chutes_core.validator.billing.settle import Settlement
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.launches import Launch
from chutes_core.wire.neuron_http import CALLER
from chutes_core.wire.receipt import Receipt, ReceiptList

VALIDATOR = Keypair.create_from_uri("//Validator")


class Records:
    """A journal in memory."""

    worker = "w"

    def __init__(self, *records: Invocation) -> None:
        self.records = records
        self.last_sequence = records[-1].sequence

    def pending(self, after_sequence, limit):
        return [r for r in self.records if r.sequence > after_sequence][:limit]

    def discard(self, up_to_sequence):
        pass


def call(sequence: int, user_id: str, **changes: object) -> Invocation:
    made = Invocation(
        "w",
        sequence,
        f"inv-{sequence}",
        user_id,
        "k",
        "c",
        "l",
        "r",
        3_600_000_000,
        1_000,
        False,
        sequence,
        10,
        1,
        2,
        1,
        200,
        "ok",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def settled(api, alice, bob):
    """Calls of both in one batch, and a later one in another."""
    users = [
        (await api.register(k, n)).json()["user_id"] for k, n in ((alice, "a1b"), (bob, "b1c"))
    ]
    store = api.services.store
    settlement = Settlement(store, sealer=Sealer(VALIDATOR, "0xg", 64))
    records = [call(1, users[0]), call(2, users[1], launch_id="m"), call(3, users[0], free=True)]
    assert settlement.drain(Records(*records)) == 3
    later = call(4, users[0], prompt_tokens=3, completion_tokens=4)
    assert settlement.drain(Records(*records, later)) == 1
    return store


async def test_a_caller_gets_the_receipt_of_its_call(settled, api, alice, bob):
    """It verifies, says what was charged, and is nobody else's to read."""
    for number, charge_rao in ((1, 10), (3, 0), (4, 10)):
        answer = await api.signed(
            alice, "GET", f"/invocations/inv-{number}/receipt", purpose="invocations"
        )
        assert answer.status_code == 200, answer.text
        receipt = Receipt.model_validate(answer.json())
        receipt.check(VALIDATOR.ss58_address)
        assert receipt.call.invocation_id == f"inv-{number}"
        assert receipt.call.charge_rao == charge_rao
        assert "key_id" not in answer.text
    assert (receipt.call.prompt_tokens, receipt.call.completion_tokens) == (3, 4)
    for number in (2, 9):
        answer = await api.signed(
            alice, "GET", f"/invocations/inv-{number}/receipt", purpose="invocations"
        )
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_invocation")


async def test_a_call_from_before_receipts_has_none(api, alice):
    """It is there, and says so."""
    user_id = (await api.register(alice, "a1b")).json()["user_id"]
    Settlement(api.services.store).drain(Records(call(1, user_id)))
    answer = await api.signed(alice, "GET", "/invocations/inv-1/receipt", purpose="invocations")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_receipt")


async def test_a_batch_is_signed_once(settled, api):
    """Each record lies in one batch; settling again what is settled signs nothing."""
    store = settled
    assert store.invocations.batch_of("w", 1) == store.invocations.batch_of("w", 3)
    assert store.invocations.batch_of("w", 4) != store.invocations.batch_of("w", 3)
    assert store.invocations.batch_of("w", 5) is None
    assert store.invocations.batch_of("v", 1) is None


async def test_a_miner_gets_the_receipts_of_its_launches(settled, new_launch):
    """Page by page, each verifies; another miner's launch is none of its business."""
    settled.launches.insert(new_launch(), b"k", b"t")
    app = FastAPI()
    install_errors(app)
    app.include_router(miner.build_router(None, settled))  # type: ignore[arg-type]

    async def signed(scope, receive, send):
        await app(scope | {CALLER: SimpleNamespace(hotkey_ss58=who[0])}, receive, send)

    who = ["miner"]
    transport = httpx.ASGITransport(signed)
    async with httpx.AsyncClient(transport=transport, base_url="http://v") as http:
        answer = await http.get("/miner/launches/l/receipts")
        assert answer.status_code == 200, answer.text
        receipts = ReceiptList.model_validate(answer.json()).receipts
        assert [one.call.sequence for one in receipts] == [1, 3, 4]
        for one in receipts:
            one.check(VALIDATOR.ss58_address)
        more = await http.get("/miner/launches/l/receipts", params={"after_us": 3})
        assert [one["call"]["sequence"] for one in more.json()["receipts"]] == [4]
        who[0] = "stranger"
        refused = await http.get("/miner/launches/l/receipts")
        assert (refused.status_code, refused.json()["code"]) == (404, "no_such_launch")


async def test_receipts_come_in_pages(settled):
    """A page holds MAX_RECEIPTS; the rest comes behind the last one's time."""
    calls = [call(n, "u", launch_id="p") for n in range(5, 6 + MAX_RECEIPTS)]
    Settlement(settled, sealer=Sealer(VALIDATOR, "0xg", 64)).drain(Records(*calls))
    receipts = Receipts(settled)
    page = receipts.of_launch("p", 0)
    assert len(page) == MAX_RECEIPTS
    (last,) = receipts.of_launch("p", page[-1].call.started_at_us)
    assert last.call.sequence == 5 + MAX_RECEIPTS
    last.check(VALIDATOR.ss58_address)


def settle_alone(store, calls):
    """Settle each call as a batch of its own."""
    settlement = Settlement(store, sealer=Sealer(VALIDATOR, "0xg", 64))
    for one in calls:
        settlement.drain(Records(one))


async def test_a_page_of_receipts_never_ends_within_a_moment(settled):
    """Calls that began in one microsecond are on one page, for the next begins behind it."""
    late = {MAX_RECEIPTS, MAX_RECEIPTS + 1, MAX_RECEIPTS + 2}
    calls = [
        call(4 + n, "u", launch_id="p", started_at_us=1_000 if n in late else n)
        for n in range(1, MAX_RECEIPTS + 3)
    ]
    Settlement(settled, sealer=Sealer(VALIDATOR, "0xg", 64)).drain(Records(*calls))
    receipts = Receipts(settled)
    first = receipts.of_launch("p", 0)
    rest = receipts.of_launch("p", first[-1].call.started_at_us)
    assert [one.call.sequence for one in first + rest] == [one.sequence for one in calls]
    assert len(rest) == 3


async def test_a_page_of_receipts_reads_a_bounded_number_of_records(settled, monkeypatch):
    """Where calls lie in many batches the page is shorter, and nothing is left out."""
    monkeypatch.setattr("chutes_core.validator.billing.receipts.MAX_RECORDS_READ", 3)
    calls = [call(n, "u", launch_id="p") for n in range(5, 13)]
    settle_alone(settled, calls)
    receipts, seen, pages = Receipts(settled), [], []
    while page := receipts.of_launch("p", seen[-1].call.started_at_us if seen else 0):
        seen += page
        pages.append(len(page))
    assert pages == [3, 3, 2]
    assert [one.call.sequence for one in seen] == [one.sequence for one in calls]


@pytest.fixture
def new_launch():
    def make():
        return Launch(
            launch_id="l",
            chute_id="c",
            version="version",
            image_id="image",
            miner_hotkey="miner",
            miner_coldkey="cold",
            registered_at_block=7,
            node_id="node",
            gpu_uuids=("GPU-1",),
            gpu_class="l4",
            relay_host="127.0.0.1",
            relay_port=4000,
            profile="test",
            stand_in=True,
            requested_at_s=100,
            deadline_s=200,
        )

    return make
