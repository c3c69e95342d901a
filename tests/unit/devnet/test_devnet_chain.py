"""The chain as a whole: money is conserved, and a defect never stops it."""

from chutes_core.devnet import pallets


def issued_and_held(net):
    view = net.chain.state_at(net.chain.best.number)
    accounts = view.items("System", "Account")
    held = sum(record["data"]["free"] for _, record in accounts)
    return view.get("Balances", "TotalIssuance"), held


def test_the_issuance_is_the_sum_of_all_balances(net):
    """After transfers, deaths, dust, burns, stakes, fees and failures alike."""
    dead, eve = net.address("//Dead"), net.address("//Eve")
    net.run("//Alice", "Balances", "transfer_keep_alive", dest=dead, value=1_000_000)
    net.run("//Dead", "Balances", "transfer_allow_death", dest=eve, value=833_500)
    assert net.free("//Dead") == 0  # what was left was dust
    net.run("//Bob", "Balances", "transfer_all", dest=eve, keep_alive=False)
    net.run("//Eve", "Balances", "transfer_keep_alive", dest=eve, value=5)
    net.run("//Eve", "Balances", "transfer_keep_alive", dest=dead, value=10**18)
    net.register("//Miner1")
    stake = {"hotkey": net.address("//Validator1//hotkey"), "netuid": 1}
    net.run("//Eve", "SubtensorModule", "add_stake", amount_staked=10**9, **stake)
    net.run("//Eve", "SubtensorModule", "remove_stake", amount_unstaked=10**9, **stake)
    net.blocks(10)
    issued, held = issued_and_held(net)
    assert issued == held


def test_a_defect_in_a_call_drops_the_extrinsic_and_nothing_else(net, monkeypatch):
    """The watcher is told invalid, no fee is taken, and the next block is made."""

    def broken(_context, _origin, _call):
        raise ZeroDivisionError

    monkeypatch.setitem(pallets.system.CALLS, "remark", broken)
    before = net.free("//Alice")
    bad = net.submit(net.sign("//Alice", ("System", "remark", {"remark": "0x00"})))
    dest = net.address("//Dave")
    good = net.sign("//Bob", ("Balances", "transfer_keep_alive", {"dest": dest, "value": 9}))
    net.submit(good)
    net.blocks(2)
    assert net.statuses[bad] == ["ready", "invalid"]
    assert net.chain.crashes == 1
    assert net.free("//Alice") == before
    assert good in net.chain.block_at(net.chain.best.number - 1).extrinsics


def test_an_extrinsic_without_money_for_its_fee_in_the_block_is_dropped(net):
    """Two spend the same balance; the second is told invalid and the third waits for nothing."""
    all_away = ("Balances", "transfer_all", {"dest": net.address("//Eve"), "keep_alive": True})
    first = net.submit(net.sign("//Bob", all_away, nonce=0))
    second = net.submit(net.sign("//Bob", ("System", "remark", {"remark": "0x01"}), nonce=1))
    net.blocks(1)
    assert "inBlock" in net.statuses[first][-1]
    assert net.statuses[second][-1] == "invalid"
    assert len(net.chain.pool) == 0
