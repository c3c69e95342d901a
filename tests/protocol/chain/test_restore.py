"""A validator restored from a backup on another host finds what came later on the chain."""

import subprocess
import sys

import pytest
from money_house import RAO, House, send

from chutes_core.base.errors import Conflict
from chutes_core.chain.transfers import TransferWatcher
from chutes_core.validator.billing.roles import held_rao
from chutes_core.validator.domain.deposits import RefundState
from chutes_core.validator.domain.money import CHAIN_PAYMENTS, chain_deposit, user_credit

NUMBER = 7_000_001


@pytest.fixture
def house(devnet, tmp_path):
    """A house whose validator keeps its store where the command looks for it."""
    watcher = TransferWatcher(devnet.url)
    built = House(devnet.url, tmp_path, numbers=(NUMBER,), watcher=watcher)
    built.sweeps = False
    move(built, tmp_path / "host-a" / "data")
    built.move_in()
    yield built
    built.close()
    watcher.close()


def move(house, data_dir):
    """Let the validator work with another data folder from now on."""
    house.store_path = data_dir / "validator.sqlite"
    house.open()


def backup(command, data_dir, folder):
    """Run the command as docs/chain.md shows it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "chutes_core.validator.backup", command),
            *("--data-dir", str(data_dir), "--folder", str(folder)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def credit_of(house):
    """Return the account's credit in the ledger."""
    return house.store.ledger.balance(user_credit(house.account.user_id))


def test_what_a_backup_does_not_know_is_read_from_the_chain_and_never_paid_again(house, tmp_path):
    """A later payment is credited; a refund that the backup forgot is seen leaving, paid once."""
    account, user = house.account, house.account.user_id
    send(house.url, account.payment_address, RAO)
    send(house.url, account.deposit_address, 2 * RAO, payer="//Bob")
    house.run_until(lambda: credit_of(house) and held_rao(house.store, user), "credit")
    backup("save", tmp_path / "host-a" / "data", tmp_path / "backup")

    house.ask_back()
    house.run_until(house.ended, "refund")
    assert house.refund().state is RefundState.FINALIZED
    paid_rao = house.refund().paid_rao
    send(house.url, account.payment_address, 3 * RAO, payer="//Charlie")
    house.run_until(lambda: credit_of(house) == 4 * RAO, "second credit")
    head = house.cursor

    backup("restore", tmp_path / "host-b" / "elsewhere", tmp_path / "backup")
    move(house, tmp_path / "host-b" / "elsewhere")
    assert (credit_of(house), house.cursor < head) == (RAO, True)
    assert house.store.cursors.hash_of("payments") is not None
    house.run_until(lambda: house.cursor >= head, "the blocks that the backup lacks")
    ledger = house.store.ledger
    assert credit_of(house) == 4 * RAO
    assert -ledger.balance(CHAIN_PAYMENTS) == house.chain.balance_rao(account.payment_address)
    on_deposit = house.chain.balance_rao(account.deposit_address)
    assert -ledger.balance(chain_deposit(user)) == on_deposit
    assert held_rao(house.store, user) < RAO // 1_000
    with pytest.raises(Conflict, match="deposit_spent"):
        house.ask_back()
    for _ in range(3):
        house.round()
    assert house.chain.balance_rao(account.coldkey_ss58) == paid_rao
