"""`chutes deposit` in all its forms, and what it makes of the child process that pays."""

import json
import sys

import pytest

from chutes_core.base.errors import ChutesError
from chutes_core.cli import deposit, paying

HASH = "0x" + "ab" * 32
PAYER = "5Payer"


def one(rao=2 * 10**9, *, block=HASH, source=PAYER):
    """Return a deposit as the API shows it."""
    return {
        "deposit_id": f"{block[2:]}:2:5",
        "rao": rao,
        "tao": f"{rao / 10**9:.9f}",
        "from": source,
        "block": 7,
        "at": "2026-11-24T00:00:00Z",
        "unlocks_at": "2026-12-01T00:00:00Z",
        "state": "held",
        "refund_id": None,
    }


def mine(*deposits, required=2 * 10**9):
    """Return /users/me/deposits."""
    return {
        "deposit_address": "5Deposit",
        "held_rao": sum(d["rao"] for d in deposits),
        "required_rao": required,
        "chutes_drain_at": None,
        "deposits": list(deposits),
        "refunds": [],
    }


@pytest.fixture
def account(api, registered, monkeypatch):
    """A registered user of a validator that asks two TAO; nothing waits for real."""
    monkeypatch.setattr(deposit, "_POLL_S", 0.0)
    api.on("GET /.well-known/chutes", {"genesis_hash": "0x01", "hotkey": "5Validator"})
    api.on("GET /developer_deposit", {"lock_seconds": 604_800})
    return api


@pytest.fixture
def child(monkeypatch):
    """Let the child be a script that prints given lines; return what it was asked."""
    asked = []

    def says(*lines):
        text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)

        def command(payment):
            asked.append(payment)
            return [sys.executable, "-c", f"print({text!r})"]

        monkeypatch.setattr(paying, "_command", command)
        return asked

    return says


CHECKED = {"event": "checked", "payer": PAYER, "free_rao": 5, "fee_rao": 166_250}
SENDING = {"event": "sending"}
FINAL = {"event": "final", "extrinsic_hash": "0xee", "block_number": 7, "block_hash": HASH}


def test_the_address_alone_for_any_wallet(run, account):
    """--address prints one line that can be pasted, or one JSON document."""
    account.on("GET /users/me/deposits", mine())
    assert run("deposit", "--address").out == "5Deposit\n"
    assert run("deposit", "--address", "--json").json == {"deposit_address": "5Deposit"}


def test_what_is_missing_is_sent_and_the_locks_end_shown(run, account, child):
    """--send alone sends what the role still needs, waits until it counts, says when it is free."""
    part, sent = one(500_000_000, block="0x" + "cd" * 32), one(1_500_000_000)
    stranger = one(1, source="5Else")
    account.on("GET /users/me/deposits", mine(part))
    account.on("GET /users/me/deposits", mine(part, stranger))  # same block, not ours
    account.on("GET /users/me/deposits", mine(part, stranger, sent))
    asked = child("a library says hello", CHECKED, SENDING, FINAL)
    done = run("deposit", "--send", "--network", "ws://node", "--yes")
    assert done.code == 0
    assert "1.500000000 TAO, free at 2026-12-01T00:00:00Z" in done.out
    assert "0.000166250" in done.err
    (payment,) = asked
    assert (payment.to_ss58, payment.rao) == ("5Deposit", 1_500_000_000)
    assert (payment.network, payment.genesis_hash) == ("ws://node", "0x01")


def test_a_number_is_sent_as_it_is(run, account, child, monkeypatch):
    """--send 0.25, on the node of the environment, as JSON."""
    monkeypatch.setenv("CHUTES_CHAIN_URL", "ws://env")
    account.on("GET /users/me/deposits", mine())
    account.on("GET /users/me/deposits", mine(one(250_000_000)))
    asked = child(CHECKED, SENDING, FINAL)
    done = run("deposit", "--send", "0.25", "--yes", "--json")
    assert done.json["sent"]["unlocks_at"] == "2026-12-01T00:00:00Z"
    assert done.json["sent"]["extrinsic_hash"] == "0xee"
    assert (asked[0].rao, asked[0].network) == (250_000_000, "ws://env")


def test_nothing_is_sent_where_nothing_is_missing_or_nobody_said_yes(run, account, child):
    """The role is paid for; or nobody can be asked."""
    asked = child(CHECKED, SENDING, FINAL)
    account.on("GET /users/me/deposits", mine(one()))
    assert run("deposit", "--send", "--yes", "--json").json["error"]["code"] == "nothing_missing"
    assert run("deposit", "--send", "1", "--json").json["error"]["code"] == "needs_yes"
    assert run("deposit", "--send", "--wait", "1").code == 2
    assert asked == []


def refusal(code):
    """Return the child's last line."""
    return {"event": "error", "code": code, "message": "no", "hint": "do", "facts": {}}


@pytest.mark.parametrize(
    ("lines", "code", "exit_code", "hint"),
    [
        ((refusal("coldkey_missing"),), "coldkey_missing", 2, "do"),
        ((CHECKED, refusal("insufficient_balance")), "insufficient_balance", 1, "do"),
        ((refusal("another_chain"),), "another_chain", 1, "do"),
        ((CHECKED, SENDING, refusal("dispatch_failed")), "dispatch_failed", 1, "do"),
        ((CHECKED, SENDING, refusal("extrinsic_unknown")), "extrinsic_unknown", 1, "look"),
        ((CHECKED, SENDING), "payment_cut", 1, "look"),
        ((), "payment_cut", 1, "again"),
    ],
)
def test_failures_say_whether_money_may_be_on_its_way(
    run, account, child, lines, code, exit_code, hint
):
    """Before the child sends, it is safe to try again; afterwards one looks first."""
    account.on("GET /users/me/deposits", mine())
    child(*lines)
    done = run("deposit", "--send", "--yes", "--json")
    assert done.json["error"]["code"] == code
    assert done.code == exit_code
    assert hint in done.json["error"]["hint"]


def test_without_the_chain_library_it_says_what_to_install(run, account, monkeypatch):
    """A laptop with the SDK alone can still print the address."""
    account.on("GET /users/me/deposits", mine())
    monkeypatch.setattr(paying.importlib.util, "find_spec", lambda name: None)
    error = run("deposit", "--send", "--yes", "--json").json["error"]
    assert error["code"] == "chain_library_missing"
    assert "chutes-core[wallet]" in error["hint"]


def test_waiting_ends_with_the_time_limit(run, account):
    """--wait returns when so much more has come, and an error when it has not."""
    account.on("GET /users/me/deposits", mine())
    late = run("deposit", "--wait", "1", "--timeout", "0", "--json")
    assert late.json["error"]["code"] == "no_transfer_yet"
    account.replies.clear()
    account.on("GET /users/me/deposits", mine())
    account.on("GET /users/me/deposits", mine(one(10**9)))
    assert run("deposit", "--wait", "1", "--json").json["held_rao"] == 10**9
    account.replies.clear()
    account.on("GET /users/me/deposits", mine(one(10**9)))
    account.on("GET /users/me/deposits", mine(one(10**9), one(10**9)))
    assert run("deposit", "--wait", "--json").json["held_rao"] == 2 * 10**9


def test_every_failure_of_the_child_is_typed(child):
    """What `send` raises carries code and hint."""
    child(refusal("coldkey_locked"))
    with pytest.raises(ChutesError, match="coldkey_locked"):
        paying.send(paying.Payment("n", "g", "p", "w", "t", 1, 1.0))
