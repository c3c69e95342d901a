"""Money under everything that the devnet can let go wrong: credited once, refunded once, equal.

One account pays and deposits, is refunded and swept, while one fault after another is in force;
afterwards ledger, outboxes and chain agree to the rao. The list of faults is the devnet's own.
"""

from itertools import count

import pytest
from fault_cases import CASES
from money_house import RAO, House, send

from chutes_core.chain.transfers import TransferWatcher
from chutes_core.devnet.launch import DevnetProcess
from chutes_core.validator.domain.deposits import RefundState

PAID, DEPOSITED = 3 * RAO, 2 * RAO
ERA = 70
NUMBERS = count(1)


@pytest.fixture(scope="module")
def net():
    """A devnet that obeys."""
    with DevnetProcess(block_seconds=0.2, tempo=1_000, dev_controls=True) as running:
        yield running


@pytest.fixture(scope="module")
def watcher(net):
    """One watcher with an archive; opening it costs seconds."""
    made = TransferWatcher(net.url, archive_url=f"{net.url}/archive")
    yield made
    made.close()


@pytest.fixture
def controls(net):
    """The remote control; what a test began is ended."""
    remote = net.controls()
    yield remote
    remote.heal()


@pytest.fixture
def house(net, watcher, tmp_path):
    """A house whose account nobody else on this chain has."""
    built = House(
        *(net.url, tmp_path),
        numbers=(next(NUMBERS),),
        watcher=watcher,
        archive_url=f"{net.url}/archive",
    )
    built.move_in()
    yield built
    built.close()


def begin(case, controls, account):
    """Let it go wrong from now on, for refund and sweep."""
    case.begin(controls, account.deposit_address, account.payment_address)


def endure(house, controls, case, *, first=False):
    """Let every loop run while it goes wrong."""
    for number in range(4):
        if case.on == "rounds" and number % 2 and not (first and case.late):
            controls.fault(case.kind, **case.options)
        house.round()


def live_on(house, controls, done, what):
    """Let rounds go by until it is done; where something hangs, a whole era at once."""
    counted = count(1)

    def hurry():
        if next(counted) % 4 == 0 and house.under_way():
            controls.new_block(ERA)

    house.run_until(done, what, before_round=hurry)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_money_is_credited_and_paid_once_whatever_goes_wrong(house, controls, case):
    """Payment and deposit are credited once, the refund is paid once, the sweep moves once."""
    account, user = house.account, house.account.user_id
    house.sweeps = False
    if case.stands and case.kind != "refuse_connections":
        begin(case, controls, account)
    send(house.url, account.payment_address, PAID)
    send(house.url, account.deposit_address, DEPOSITED, payer="//Bob")
    if case.on == "world" and not (case.stands and case.kind != "refuse_connections"):
        begin(case, controls, account)
    endure(house, controls, case, first=True)
    assert not (case.stands and house.store.deposits.of_user(user))
    controls.heal()
    live_on(house, controls, lambda: house.store.deposits.of_user(user), "credit")
    house.check(paid_in=PAID, deposited=DEPOSITED)

    begin(case, controls, account)
    house.ask_back()
    house.sweeps = True
    endure(house, controls, case)
    if case.stands:
        assert not house.ended()
        assert not house.swept()
    if not case.ends_by_itself:
        controls.heal()
    if case.foreign:
        live_on(house, controls, lambda: house.refund().reason == "foreign_nonce", "alarm")
        live_on(house, controls, house.at_rest, "rest")
        assert "foreign_nonce" in house.codes("sweep")
        assert house.refund().state is RefundState.REQUESTED
    else:
        live_on(house, controls, house.ended, "refund")
        if case.kind == "fail_extrinsic":
            assert house.refund().state is RefundState.FAILED
            house.ask_back()
            live_on(house, controls, house.ended, "second refund")
        assert house.refund().state is RefundState.FINALIZED
        live_on(house, controls, lambda: house.swept() and house.at_rest(), "sweep and rest")
    house.check(paid_in=PAID, deposited=DEPOSITED)
    assert house.codes() >= set(case.codes)
