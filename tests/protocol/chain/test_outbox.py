"""The outbox on a devnet: killed after each of its steps, dropped, overtaken, cut off."""

import itertools
import time

import bittensor as bt
import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import ChainError, Conflict, TimedOut, Unavailable
from chutes_core.chain import outbox as outbox_module
from chutes_core.chain.client import ChainClient, composed
from chutes_core.chain.connection import Patience
from chutes_core.chain.intents import OUTBOX_NEXT, Intent, OutboxState
from chutes_core.chain.outbox import STEPS
from chutes_core.validator.store.database import Store
from scripts import accept_nonce

RAO = 10**9


class DiedError(BaseException):
    """Stands for the end of the process: nothing catches it."""


def transfer(to, rao=RAO):
    """Return a builder of a transfer."""
    return composed(bt.calls.Balances.transfer_keep_alive(dest=to, value=rao))


@pytest.fixture
def payer(devnet, key):
    """A funded key that nobody used before."""
    fresh = Keypair.create_from_mnemonic(Keypair.generate_mnemonic())
    with ChainClient.connect(devnet.url, devnet.netuid) as chain:
        call = bt.calls.Balances.transfer_keep_alive(dest=fresh.ss58_address, value=10 * RAO)
        chain.call(key("//Alice"), call, "fund")
    return fresh


@pytest.fixture
def payee():
    """An address that nobody used before."""
    return Keypair.create_from_mnemonic(Keypair.generate_mnemonic()).ss58_address


@pytest.fixture
def opened(devnet, tmp_path):
    """Open store, client and outbox over and over, as restarts do."""
    things = []

    def close():
        while things:
            things.pop().close()

    def open_again(*, reached=None, url=None, patience=None):
        close()
        store = Store(tmp_path / "s" / "store.sqlite")
        chain = ChainClient.connect(url or devnet.url, devnet.netuid, patience=patience)
        things.extend((store, chain))
        return chain.use_outbox(store.outbox, reached=reached), store, chain

    yield open_again
    close()


def dies_at(step):
    """Return a hook that ends the process at a step."""

    def reached(at):
        if at == step:
            raise DiedError

    return reached


@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_after_any_step_pays_once(opened, payer, payee, step):
    """Whoever opens the store again goes on, and the money arrives exactly once."""
    intent = Intent(f"pay:{step}", "payment", RAO)
    outbox, _, _ = opened(reached=dies_at(step))
    with pytest.raises(DiedError):
        outbox.deliver(intent, transfer(payee), payer, "pay", hotkey_signed=False)
    outbox, store, chain = opened()
    receipt = outbox.deliver(intent, transfer(payee), payer, "pay", hotkey_signed=False)
    again = outbox.deliver(intent, transfer(payee), payer, "pay", hotkey_signed=False)
    assert again == receipt
    assert chain.balance_rao(payee) == RAO
    (item,) = store.outbox.all()
    assert (item.state, item.extrinsic_hash) == (OutboxState.FINALIZED, receipt.extrinsic_hash)
    assert item.fee_rao > 0
    assert chain.balance_rao(payer.ss58_address) == 10 * RAO - RAO - item.fee_rao


def test_a_failed_dispatch_may_be_tried_again_and_its_fee_is_known(opened, payer, payee):
    """ExtrinsicFailed at finality is a failure, whatever the inclusion said."""
    outbox, store, chain = opened()
    intent = Intent("pay", "payment", 100 * RAO)
    with pytest.raises(ChainError):
        outbox.deliver(intent, transfer(payee, 100 * RAO), payer, "pay", hotkey_signed=False)
    (item,) = store.outbox.all()
    assert item.state is OutboxState.FAILED
    assert chain.balance_rao(payer.ss58_address) == 10 * RAO - item.fee_rao
    outbox.deliver(intent, transfer(payee), payer, "pay", hotkey_signed=False)
    assert [one.state for one in store.outbox.all()] == [OutboxState.FAILED, OutboxState.FINALIZED]


def test_dead_is_only_what_the_whole_finalized_era_lacks(opened, payer, payee, monkeypatch):
    """An extrinsic that no block of its era holds is dead, and then it may be signed anew."""
    intent = Intent("pay", "payment", RAO)
    outbox, store, _ = opened(reached=dies_at("stored"))
    with pytest.raises(DiedError):
        outbox.post(intent, transfer(payee), payer, "pay")
    outbox, store, chain = opened()

    async def never(substrate, item):
        return None

    with monkeypatch.context() as patch:
        patch.setattr(outbox_module, "_offer", never)
        item = store.outbox.open_of(payer.ss58_address)
        with pytest.raises(Unavailable, match="extrinsic_in_flight"):
            outbox.post(Intent("other", "payment", 1), transfer(payee, 1), payer, "pay")
        while item.state is OutboxState.SIGNED:
            before = chain.finalized().number
            item = outbox.look(item)
            assert item.state is OutboxState.SIGNED or chain.finalized().number >= item.era_to
            if item.state is OutboxState.SIGNED:
                assert before < item.era_to
                with pytest.raises(Unavailable, match="extrinsic_in_flight"):
                    outbox.post(Intent("other", "payment", 1), transfer(payee, 1), payer, "pay")
                time.sleep(0.5)
    assert item.state is OutboxState.DEAD
    outbox.deliver(intent, transfer(payee), payer, "pay", hotkey_signed=False)
    assert chain.balance_rao(payee) == RAO


def test_a_foreign_nonce_stops_money_and_alarms(opened, devnet, payer, payee):
    """Where the key signed something elsewhere, no money leaves and the alarm is raised."""
    outbox, store, chain = opened()
    outbox.deliver(Intent("a", "payment", RAO), transfer(payee), payer, "pay")
    call = bt.calls.System.remark(remark=b"elsewhere")
    chain.call(payer, call, "remark")
    with pytest.raises(ChainError, match="foreign_nonce"):
        outbox.deliver(Intent("b", "payment", RAO), transfer(payee), payer, "pay")
    assert outbox.alarms == 1
    assert len(store.outbox.all()) == 1
    outbox.deliver(Intent("c", "weights"), transfer(payee), payer, "set weights")
    assert outbox.alarms == 1  # told once


def test_an_operator_lets_money_go_on_from_a_foreign_nonce(opened, tmp_path, payer, payee, capsys):
    """scripts/accept_nonce.py: not behind ours, not in flight, not a guess; then money leaves."""
    outbox, store, chain = opened()
    outbox.deliver(Intent("a", "payment", RAO), transfer(payee), payer, "pay")
    expected = store.outbox.next_nonce(payer.ss58_address)
    chain.call(payer, bt.calls.System.remark(remark=b"elsewhere"), "remark")

    def accept(nonce, data=tmp_path / "s" / "store.sqlite"):
        given = {"--data": data, "--key": payer.ss58_address, "--nonce": nonce, "--reason": "mine"}
        status = accept_nonce.main([*map(str, itertools.chain(*given.items())), "--json"])
        return status, capsys.readouterr()

    def pay():
        return outbox.deliver(Intent("b", "payment", RAO), transfer(payee), payer, "pay")

    status, said = accept(expected)
    assert (status, "nonce_used" in said.err) == (1, True)
    status, said = accept(expected + 1, tmp_path / "none.sqlite")
    assert (status, "no_database" in said.err) == (1, True)
    assert accept(expected + 2)[0] == 0  # a typing error: the chain's nonce is another
    with pytest.raises(ChainError, match="foreign_nonce"):
        pay()
    chain.call(payer, bt.calls.System.remark(remark=b"again"), "remark")
    assert pay().extrinsic_hash == store.outbox.all()[-1].extrinsic_hash
    assert chain.balance_rao(payee) == 2 * RAO
    assert store.outbox.next_nonce(payer.ss58_address) == expected + 3


def test_no_nonce_is_accepted_while_one_is_in_flight(opened, payer, payee):
    """Its end decides what the next nonce is."""
    outbox, _, _ = opened(reached=dies_at("stored"))
    with pytest.raises(DiedError):
        outbox.post(Intent("a", "payment", RAO), transfer(payee), payer, "pay")
    outbox, store, _ = opened()
    with pytest.raises(Conflict, match="in flight"):
        store.outbox.accept_nonce(payer.ss58_address, 9, reason="impatience", at_s=1)


def test_a_stolen_nonce_alarms_and_the_intent_is_signed_again_after_its_era(
    opened, payer, payee, monkeypatch
):
    """Another extrinsic with our nonce: ours is dead after its era, and the alarm comes at once."""
    outbox, _, _ = opened(reached=dies_at("stored"))
    with pytest.raises(DiedError):
        outbox.post(Intent("a", "payment"), transfer(payee), payer, "pay")
    outbox, _, chain = opened()
    with ChainClient.connect(chain._connection.url, chain.netuid) as thief:
        thief.call(payer, bt.calls.System.remark(remark=b"mine"), "remark")
    item = outbox.resume(payer.ss58_address)
    assert (item.state, outbox.alarms) == (OutboxState.SIGNED, 1)
    while item.state is OutboxState.SIGNED:
        time.sleep(0.3)
        item = outbox.look(item)
    assert item.state is OutboxState.DEAD
    outbox.deliver(Intent("a", "payment"), transfer(payee), payer, "pay")
    assert chain.balance_rao(payee) == RAO


def test_a_lost_connection_is_answered_by_looking_not_by_signing(opened, relay, payer, payee):
    """Cut off again and again while it is sent, the payment still arrives once."""
    patience = Patience(first_backoff_s=0.05, max_backoff_s=0.1, attempts=8)

    def cut(step):
        if step in ("signed", "stored", "sent"):
            relay.cut()

    outbox, store, chain = opened(reached=cut, url=relay.url, patience=patience)
    outbox.deliver(Intent("a", "payment", RAO), transfer(payee), payer, "pay")
    assert chain.balance_rao(payee) == RAO
    assert len(store.outbox.all()) == 1


def test_waiting_ends_and_a_later_call_knows_more(opened, payer, payee):
    """A stall of finality is a TimedOut; the next look finds what happened."""
    patience = Patience(finality_timeout_s=0.0)
    outbox, store, chain = opened(patience=patience)
    with pytest.raises(TimedOut, match="extrinsic_unknown"):
        outbox.deliver(Intent("a", "payment", RAO), transfer(payee), payer, "pay")
    item = store.outbox.open_of(payer.ss58_address)
    while item.state is OutboxState.SIGNED:
        time.sleep(0.1)
        item = outbox.look(item)
    assert item.state is OutboxState.FINALIZED
    assert chain.balance_rao(payee) == RAO


def test_every_end_of_the_table_is_an_end():
    """Only a signed extrinsic can change; the tests above reach each of its ends."""
    assert {state for state, after in OUTBOX_NEXT.items() if after} == {OutboxState.SIGNED}
    assert OUTBOX_NEXT[OutboxState.SIGNED] == {
        OutboxState.FINALIZED,
        OutboxState.FAILED,
        OutboxState.DEAD,
    }
