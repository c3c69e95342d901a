"""Whatever the node does between two looks, the same transfers are credited, each once.

A chain grows by the schedule that hypothesis draws, while connections break in the middle of a
read, finality stands still, a lagging node answers, or one of another chain, state is discarded, a
block is missing, and the process ends or is started anew. When all is well again, the ledger has
what the chain has.
"""

import contextlib
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from substrateinterface.exceptions import SubstrateRequestException
from websocket import WebSocketConnectionClosedException

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import ChutesError
from chutes_core.chain import transfers
from chutes_core.chain.transfers import TransferWatcher
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.money import chain_deposit, user_credit, user_deposit
from chutes_core.validator.loops import credit_new_blocks
from chutes_core.validator.store.database import Store

LIVE, ARCHIVE = "ws://live", "ws://archive"
TARGETS = ("pay-1", "dep-1", "else")
ANOTHER = 1 << 64  # in the hashes of another chain


class DiedError(BaseException):
    """The process is gone: nothing in it may catch this."""


class Chain:
    """Blocks of (address, rao); how much of them is final; what goes wrong at the next reads."""

    def __init__(self):
        self.blocks = [[]]
        self.final = 0
        self.lag = 0
        self.kept_from = 0
        self.missing = None
        self.archive_down = False
        self.another = False
        self.breaks = []  # after how many requests each break comes

    def heal(self):
        """End what goes wrong; discarded state stays discarded."""
        self.lag, self.missing, self.breaks = 0, None, []
        self.archive_down = self.another = False
        self.final = len(self.blocks) - 1


class Node:
    """What substrate-interface shows of the chain, over one connection."""

    def __init__(self, chain, url):
        self._chain, self._url = chain, url

    def _request(self):
        chain = self._chain
        if self._url == ARCHIVE and chain.archive_down:
            raise WebSocketConnectionClosedException("no archive")
        if chain.breaks:
            chain.breaks[0] -= 1
            if chain.breaks[0] < 0:
                chain.breaks.pop(0)
                raise WebSocketConnectionClosedException("cut")

    def get_chain_finalised_head(self):
        self._request()
        return self._hash(max(0, self._chain.final - self._chain.lag))

    def get_block_number(self, block_hash):
        self._request()
        return int(block_hash, 16) % ANOTHER

    def _hash(self, number):
        return f"0x{number + self._chain.another * ANOTHER:x}"

    def get_block_hash(self, number):
        self._request()
        return None if number == self._chain.missing else self._hash(number)

    def rpc_request(self, method, params):
        self._request()
        number = int(params[0], 16) % ANOTHER
        return {"result": {"number": hex(number), "parentHash": self._hash(number - 1)}}

    def init_runtime(self, block_hash):
        self._request()

    def get_events(self, block_hash):
        self._request()
        number = int(block_hash, 16) % ANOTHER
        if self._url == LIVE and number < self._chain.kept_from:
            raise SubstrateRequestException({"message": "State already discarded"})
        return [
            SimpleNamespace(
                value={
                    "extrinsic_idx": index,
                    "event": {
                        "module_id": "Balances",
                        "event_id": "Transfer",
                        "attributes": {"from": "stranger", "to": to, "amount": rao},
                    },
                }
            )
            for index, (to, rao) in enumerate(self._transfers(number))
        ]

    def _transfers(self, number):
        return [("pay-1", 1), ("dep-1", 1)] if self._chain.another else self._chain.blocks[number]

    def query(self, pallet, item, block_hash):
        self._request()
        return SimpleNamespace(value=6_000 * (int(block_hash, 16) % ANOTHER))

    def close(self):
        """Close nothing."""


class Process:
    """The validator's money as one process has it."""

    def __init__(self, path):
        self.store = Store(path)
        self.payments = Payments(self.store, ManualClock(1))
        self.watcher = TransferWatcher(LIVE, archive_url=ARCHIVE)

    def look(self, die_at=None):
        """Credit what there is, as the loop does; die before a statement where told."""
        execute, left = self.store._connection.execute, [die_at]

        def dying(sql, values=()):
            if left[0] is not None:
                if left[0] == 0:
                    raise DiedError
                left[0] -= 1
            return execute(sql, values)

        self.store._connection.execute = dying
        with contextlib.suppress(ChutesError):
            credit_new_blocks(self.payments, self.watcher)
        self.store._connection.execute = execute

    def end(self):
        """Leave without a clean end."""
        self.store._connection.raw.close()
        self.watcher.close()


block = st.lists(st.tuples(st.sampled_from(TARGETS), st.integers(1, 10**12)), max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("grow"), st.lists(block, min_size=1, max_size=3)),
        st.tuples(st.just("finalize"), st.integers(1, 5)),
        st.tuples(st.just("lag"), st.integers(1, 4)),
        st.tuples(st.just("discard"), st.integers(0, 3)),
        st.tuples(st.just("missing"), st.integers(0, 8)),
        st.tuples(st.just("archive_down"), st.booleans()),
        st.tuples(st.just("breaks"), st.lists(st.integers(0, 12), min_size=1, max_size=5)),
        st.tuples(st.just("another"), st.booleans()),
        st.tuples(st.just("look"), st.none()),
        st.tuples(st.just("look"), st.integers(0, 40)),
        st.tuples(st.just("heal"), st.none()),
    ),
    max_size=25,
)


def play(path, schedule):
    """Live through a schedule; return the chain and the store when all is well again."""
    chain = Chain()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfers, "SubstrateInterface", lambda url, **_: Node(chain, url))
        process = Process(path)
        row = Account("u", 1, "u", "hot", "cold", "pay-1", "dep-1", "0", 1)
        process.store.accounts.create(lambda _: row)
        process.payments.begin(0)
        for kind, value in schedule:
            if kind == "grow":
                chain.blocks += value
            elif kind == "finalize":
                chain.final = min(len(chain.blocks) - 1, chain.final + value)
            elif kind == "discard":
                chain.kept_from = max(chain.kept_from, chain.final - value)
            elif kind == "look":
                try:
                    process.look(value)
                except DiedError:
                    process.end()
                    process = Process(path)
            elif kind == "heal":
                chain.heal()
            elif kind == "another":  # whoever has read nothing yet cannot know
                chain.another = value and process.payments.last_hash() is not None
            else:
                setattr(chain, kind, list(value) if kind == "breaks" else value)
        chain.heal()
        process.look()
        process.end()
    return chain, Store(path)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_the_same_is_credited_whatever_the_disconnections_and_stalls(schedule):
    """Ledger, deposits and cursor are what an undisturbed reader of the final chain has."""
    with tempfile.TemporaryDirectory() as folder:
        chain, store = play(Path(folder) / "v.db", schedule)
        came = [one for each in chain.blocks for one in each]
        paid, deposited = (sum(r for to, r in came if to == a) for a in ("pay-1", "dep-1"))
        deposits = [d.rao for d in store.deposits.of_user("u")]
        assert store.cursors.get("payments") == len(chain.blocks) - 1
        assert store.ledger.balance(user_credit("u")) == paid
        assert store.ledger.balance(user_deposit("u")) == deposited
        assert store.ledger.balance(chain_deposit("u")) == -deposited
        assert sorted(deposits) == sorted(rao for to, rao in came if to == "dep-1")
        assert store.ledger.total() == 0
        store.close()
