"""The validator's money part as a process that can be killed at any moment: a child of money_crash.

Started once: it imports everything and decodes the metadata, which takes seconds, and then forks.
Each line on standard input starts one life: a forked child that opens the stores, credits, asks
deposits back, pays them, sweeps and sets weights until it is killed. Its process id is printed, and
a line ``ended`` once it is gone. What it learns it keeps on disk only.
"""

import json
import os
import sys
from pathlib import Path

from bittensor_core import Keypair
from loguru import logger
from money_house import ENDED, HASTE, House

from chutes_core.base.errors import ChutesError
from chutes_core.chain.client import ChainClient
from chutes_core.chain.transfers import TransferWatcher
from chutes_core.validator.domain.deposits import DepositState
from chutes_core.validator.scoring.score import Work
from chutes_core.validator.scoring.weights import WeightSetter

NOW_US = 1_800_000_000_000_000
VALIDATOR = "//Validator1//hotkey"


class Idle:
    """Nothing was measured: the vector burns."""

    def work(self, now_us, block, block_ms):
        """Return no work."""
        return Work(now_us, block, block_ms, 100_000_000, (), ())


def ask_back(house):
    """Let every account with a deposit and no refund under way ask it back."""
    for account in house.accounts:
        refunds = house.store.refunds.of_user(account.user_id)
        deposits = house.store.deposits.of_user(account.user_id)
        held = [d for d in deposits if d.state is DepositState.HELD]
        if held and all(refund.state in ENDED for refund in refunds):
            house.refunds.request(account)


def weigher(house, netuid):
    """Return one pass of the weights' loop, on the validator's own outbox."""
    chain = ChainClient.connect(house.url, netuid, patience=HASTE)
    chain.use_outbox(house.store.outbox)
    setter = WeightSetter(chain, Keypair.create_from_uri(VALIDATOR), house.store.epochs, Idle())
    return lambda: setter.run_once(NOW_US)


def live(plan, watcher):
    """Do one pass after the other, for ever."""
    house = House(
        plan["url"],
        Path(plan["folder"]),
        numbers=plan["numbers"],
        watcher=watcher,
        till=plan["till"],
    )
    house.move_in()
    weigh = weigher(house, plan["netuid"])
    house.round()
    print("open", flush=True)
    while True:
        house.round()
        for step in (lambda: ask_back(house), weigh):
            try:
                step()
            except ChutesError as error:
                logger.debug("a pass failed: {}", error)


def main():
    """Fork a life for each line that comes, until standard input ends."""
    plan = json.loads(sys.argv[1])
    logger.remove()
    watcher = TransferWatcher(plan["url"])
    next(iter(watcher.blocks_after(watcher.finalized_number() - 1)))
    interface = watcher._live._interface
    interface.close()
    print("ready", flush=True)
    for _ in sys.stdin:
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(tell)
            os.read(told, 1)  # its process id is printed before anything of its own
            interface.connect_websocket()
            live(plan, watcher)
            os._exit(3)
        os.close(told)
        print(pid, flush=True)
        os.close(tell)
        os.waitpid(pid, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
