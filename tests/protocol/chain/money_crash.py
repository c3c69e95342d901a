"""Kills the money part at random moments under a load of transfers, refunds, sweeps and weights.

Used by test_money_crash.py (a few kills) and tests/bench/money_crash.py (many seeds). The chance
draws when it is killed (SIGKILL, as a power cut but for the disk's cache), what is paid to whom in
between, and when connections break or finality stands still; the last life is this process, which
finishes what is under way and then compares ledger, outboxes and chain to the rao.
"""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bittensor_core import Keypair
from money_house import RAO, House, stranger
from money_worker import VALIDATOR, ask_back

from chutes_core.base.errors import ChutesError
from chutes_core.chain.client import ChainClient, composed, transfer_call
from chutes_core.chain.extrinsics import sign, transmit
from chutes_core.chain.intents import OutboxState
from chutes_core.validator.domain.deposits import RefundState

PAYERS = ("//Alice", "//Bob", "//Charlie", "//Dave")
ACCOUNTS = 3
LIFE_S = (0.0, 2.5)  # from the end of the first pass
STILLBORN = 0.15  # share of lives that are killed at any moment before
PAUSE_S = 0.05  # of the load, at most
LIMIT_S = 400.0
HERE = Path(__file__).resolve().parent


@dataclass
class Crashed:
    """What one run did and saw; it raises where anything differs."""

    seed: int
    kills: int = 0
    sent: int = 0
    transfers: int = 0
    refunds: int = 0
    sweeps: int = 0
    weights: int = 0
    signed_by_the_killed: int = 0
    in_flight_at_a_kill: int = 0
    died_extrinsics: int = 0
    drops: int = 0
    stalls: int = 0
    seconds: float = 0.0
    last_passes: dict[str, int] = field(default_factory=dict)


class Load:
    """Strangers who pay, and a network that is not always well."""

    def __init__(self, net, accounts, chance, seen):
        self._accounts = accounts
        self._chance = chance
        self._seen = seen
        self._controls = net.controls()
        self._chain = ChainClient.connect(net.url, 0)

    def tick(self):
        """Let one thing happen."""
        time.sleep(self._chance.uniform(0, PAUSE_S))
        event = self._chance.random()
        if event < 0.02:
            self._controls.fault("drop_connections")
            self._seen.drops += 1
        elif event < 0.05:
            self._controls.fault("stall_finality")
            self._seen.stalls += 1
        elif event < 0.2:
            self._controls.heal()
        else:
            self._pay()

    def end(self):
        """All is well again."""
        self._controls.heal()
        self._chain.close()

    def _pay(self):
        account, kind = (
            self._chance.choice(self._accounts),
            self._chance.choice(("paid", "deposited")),
        )
        rao = self._chance.randrange(RAO // 50, 2 * RAO)
        to = account.payment_address if kind == "paid" else account.deposit_address
        key = Keypair.create_from_uri(self._chance.choice(PAYERS))
        connection = self._chain._connection
        try:
            build = composed(transfer_call(to, rao))
            signed = connection.read(lambda s: sign(s, build, key), "pay")
        except ChutesError:
            return  # the payer's last transfer is not final yet
        # Where the connection breaks here, the same bytes are handed over until the node has them.
        transmit(connection, signed, key, "pay")
        self._make_sure(signed)
        self._seen.sent += 1

    def _make_sure(self, signed):
        data = "0x" + bytes(signed.extrinsic.data).hex()
        for _ in range(3):
            with contextlib.suppress(ChutesError):
                self._controls.call("author_submitExtrinsic", data)
                return


class Lives:
    """The worker process, whose children are killed one after the other."""

    def __init__(self, plan):
        self._living = None
        folders = (str(HERE), str(HERE.parents[2]))
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "money_worker.py"), json.dumps(plan)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def start(self):
        """Start a life and return its process id."""
        self._process.stdin.write("live\n")
        self._process.stdin.flush()
        self._living = int(self._line())
        return self._living

    def wait_open(self):
        """Wait until the life has opened everything and done one pass."""
        assert self._line() == "open"

    def kill(self, pid):
        """End it at once."""
        self._living = None
        os.kill(pid, signal.SIGKILL)
        while self._line() != "ended":
            pass  # "open", where nobody waited for it

    def close(self):
        """End the worker, and its child where one was left alive."""
        if self._living is not None:
            os.kill(self._living, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _line(self):
        line = self._process.stdout.readline().strip()
        assert line, "the worker ended"
        return line


def run(net, folder, *, seed, kills, numbers, watcher=None):
    """Live, kill, live again; return what was seen when everything is equal."""
    began = time.monotonic()
    chance, seen = random.Random(seed), Crashed(seed)
    house = House(net.url, folder, numbers=numbers, watcher=watcher, till=stranger())
    house.move_in()
    accounts, till = house.accounts, house.till
    house.close()
    plan = {"url": net.url, "folder": str(folder), "numbers": list(numbers), "till": till}
    lives = Lives({**plan, "netuid": net.netuid})
    load = Load(net, accounts, chance, seen)
    try:
        for _ in range(kills):
            pid = lives.start()
            if chance.random() >= STILLBORN:
                lives.wait_open()
            until = time.monotonic() + chance.uniform(*LIFE_S)
            while time.monotonic() < until:
                load.tick()
            lives.kill(pid)
            seen.kills += 1
            _count(folder, seen)
    finally:
        load.end()
        lives.close()
    try:
        _finish(net, house, seen)
    finally:
        house.close()
        house.watcher.close()
    seen.seconds = round(time.monotonic() - began, 1)
    return seen


def _count(folder, seen):
    """Note what the killed one has left behind."""
    signed = in_flight = 0
    for path in ("validator/v.sqlite", "signer/s.sqlite", "sweep/sweep.sqlite"):
        with contextlib.closing(sqlite3.connect(folder / path)) as rows:
            found = rows.execute("SELECT count(*), sum(state='signed') FROM outbox").fetchone()
            signed += found[0]
            in_flight += found[1] or 0
    seen.signed_by_the_killed = signed
    seen.in_flight_at_a_kill += in_flight


def _came(net, house, seen):
    """Return what the chain says came to each account, user -> (paid, deposited), from genesis on.

    An era goes by first: what strangers sent is in a block then, or never will be. No block comes
    while the chain is read from its beginning: on a busy machine that takes longer than the blocks
    do, and all of them would wait to be credited.
    """
    controls = net.controls()
    with controls.during("stall_blocks"):
        controls.new_block(70)
        came = Counter()
        for block in house.watcher.blocks_after(-1):
            for transfer in block.transfers:
                came[transfer.destination_ss58] += transfer.rao
                seen.transfers += transfer.destination_ss58 in house.addresses
    return {
        account.user_id: (came[account.payment_address], came[account.deposit_address])
        for account in house.accounts
    }


def _finish(net, house, seen):
    """Let the last life end what is under way, and compare."""
    house.open()
    expected = _came(net, house, seen)
    assert seen.transfers <= seen.sent

    def arrived():
        deposits = house.store.deposits.of_user
        return all(
            sum(d.rao for d in deposits(user)) >= deposited
            for user, (_, deposited) in expected.items()
        )

    def all_done():
        refunds = house.store.refunds.open()
        return not refunds and arrived() and house.at_rest()

    house.run_until(arrived, "credit", timeout_s=LIMIT_S)
    ask_back(house)
    controls, rounds = net.controls(), iter(range(1, 10_000))

    def hurry():
        if next(rounds) % 8 == 0 and house.under_way():
            controls.new_block(70)

    house.run_until(all_done, "rest", before_round=hurry, timeout_s=LIMIT_S)
    house.check_all(expected)
    _check_weights(net, house, seen)
    refunds = [r for a in house.accounts for r in house.store.refunds.of_user(a.user_id)]
    seen.refunds = sum(r.state is RefundState.FINALIZED for r in refunds)
    seen.sweeps = len(house.swept())
    items = (*house.signer_store.outbox.all(), *house.sweep_store.outbox.all())
    seen.died_extrinsics = sum(item.state is OutboxState.DEAD for item in items)
    seen.last_passes = dict(Counter(noted.code for noted in house.noted))


def _check_weights(net, house, seen):
    """What the chain has of the validator's weights is what the outbox has, one an epoch."""
    hotkey = Keypair.create_from_uri(VALIDATOR).ss58_address
    with ChainClient.connect(net.url, net.netuid) as chain:
        outbox = chain.use_outbox(house.store.outbox)
        outbox.resume(hotkey)
        blocks = range(1, chain.finalized().number + 1)
        receipts = [chain.weights_receipt(hotkey, number) for number in blocks]
    done = [i for i in house.store.outbox.all() if i.state is OutboxState.FINALIZED]
    names = [item.intent_id for item in done]
    assert len(names) == len(set(names)), "an epoch's weights were set twice"
    on_chain = {receipt.extrinsic_hash for receipt in receipts if receipt is not None}
    assert on_chain == {item.extrinsic_hash for item in done}
    seen.weights = len(names)
