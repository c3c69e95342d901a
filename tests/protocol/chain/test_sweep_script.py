"""The sweep moves each payment once, wherever it is stopped."""

import bittensor as bt
import pytest
from bittensor_core import Keypair

from chutes_core.chain.client import ChainClient
from chutes_core.chain.outbox import STEPS
from chutes_core.validator.signer.service import child_of
from chutes_core.validator.store.database import Store
from scripts import sweep as script

RAO = 10**9
child = child_of("//Treasury//payment")


class DiedError(BaseException):
    """Stands for the end of the process."""


def pay(devnet, key, number):
    call = bt.calls.Balances.transfer_keep_alive(dest=child(number).ss58_address, value=RAO)
    with ChainClient.connect(devnet.url, 0) as chain:
        chain.call(key("//Alice"), call, "pay")


@pytest.mark.parametrize(("number", "step"), list(enumerate(STEPS, 500)))
def test_a_stopped_sweep_goes_on_and_moves_once(devnet, key, tmp_path, number, step):
    """Stopped after each step and run again, the operator has the payment once."""
    pay(devnet, key, number)
    to = Keypair.create_from_mnemonic(Keypair.generate_mnemonic()).ss58_address

    def reached(at):
        if at == step:
            raise DiedError

    def run(reached=None):
        store = Store(tmp_path / "sweep.sqlite")
        try:
            with ChainClient.connect(devnet.url, 0) as chain:
                outbox = chain.use_outbox(store.outbox, reached=reached)
                done = script.sweep(chain, outbox, store, child, to, number, RAO // 100)
                fee = sum(item.fee_rao for item in store.outbox.all())
                rest = chain.balance_rao(child(number).ss58_address)
                return done, chain.balance_rao(to), rest, fee
        finally:
            store.close()

    with pytest.raises(DiedError):
        run(reached)
    run()
    done, there, rest, fee = run()
    assert done is None
    assert there + rest + fee == RAO
    assert 500 <= rest < 500 + fee // 50


def test_the_command_sweeps_a_range(devnet, key, tmp_path, capsys):
    """It says what it moved, and a second run moves nothing."""
    pay(devnet, key, 600)
    secret = tmp_path / "key"
    secret.touch(mode=0o600)
    secret.write_text("//Treasury//payment\n")
    to = Keypair.create_from_mnemonic(Keypair.generate_mnemonic()).ss58_address
    command = [
        *("--network", devnet.url, "--key-file", str(secret), "--to", to),
        *("--first", "599", "--last", "601", "--state", str(tmp_path / "s.sqlite")),
    ]
    assert script.main(command) == 0
    assert "account 600" in capsys.readouterr().out
    assert script.main(command) == 0
    assert "swept 0.000000000 TAO" in capsys.readouterr().out
    secret.chmod(0o644)
    assert script.main(command) == 1
