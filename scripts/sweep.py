#!/usr/bin/env python
"""Moves what users paid from their payment addresses to one address of the operator.

Run it where the payment treasury's secret is, never on the validator's host. Every transfer is
written down before it is sent (--state), so it can be stopped and run again at any point; what is
in flight is finished first. 500 rao stay at each address, so that its nonce never starts again.

Exit status: 0 everything was swept, 1 something was not (code and hint on standard error).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import bittensor as bt

from chutes_core.base.errors import ChutesError
from chutes_core.base.units import format_tao, parse_tao
from chutes_core.chain.client import ChainClient, composed
from chutes_core.chain.intents import Intent, OutboxState
from chutes_core.chain.outbox import Outbox
from chutes_core.validator.signer.__main__ import read_secret
from chutes_core.validator.signer.service import EXISTENTIAL_DEPOSIT_RAO, child_of
from chutes_core.validator.store.database import Store

_MARGIN_RAO = 16


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        swept = _run(arguments)
    except ChutesError as error:
        print(f"error: {error.message} [{error.code}]", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(swept))
    else:
        for one in swept:
            print(f"account {one['number']}  {format_tao(one['rao'])} TAO  {one['extrinsic_hash']}")
        print(f"swept {format_tao(sum(one['rao'] for one in swept))} TAO")
    return 0


def sweep(
    chain: ChainClient, outbox: Outbox, store: Store, child: Any, to: str, number: int, min_rao: int
) -> dict[str, Any] | None:
    """Sweep one account's payment address; None where nothing worth it lies there.

    Raises:
        ChutesError: it could not be done now; running it again goes on.
    """
    key = child(number)
    item = outbox.resume(key.ss58_address)
    if item is not None and item.state is OutboxState.SIGNED:
        intent, value_rao = Intent(item.intent_id, item.purpose, item.amount_rao), item.amount_rao
    else:
        free_rao = chain.balance_rao(key.ss58_address)
        if free_rao < max(min_rao, 2 * EXISTENTIAL_DEPOSIT_RAO):
            return None
        fee_rao = chain.transfer_fee_rao(key, to, free_rao)
        value_rao = free_rao - EXISTENTIAL_DEPOSIT_RAO - fee_rao - fee_rao // 100 - _MARGIN_RAO
        if value_rao < EXISTENTIAL_DEPOSIT_RAO:
            return None
        nonce = store.outbox.next_nonce(key.ss58_address) or 0
        intent = Intent(f"sweep:{number}:{nonce}", f"sweep {number}", value_rao)
    call = bt.calls.Balances.transfer_keep_alive(dest=to, value=value_rao)
    receipt = outbox.deliver(intent, composed(call), key, "sweep", hotkey_signed=False)
    return {"number": number, "rao": value_rao, "extrinsic_hash": receipt.extrinsic_hash}


def _run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    child = child_of(read_secret(Path(arguments.key_file).expanduser()))
    store = Store(Path(arguments.state).expanduser())
    try:
        with ChainClient.connect(arguments.network, 0) as chain:
            outbox = chain.use_outbox(store.outbox)
            swept = []
            for number in range(arguments.first, arguments.last + 1):
                one = sweep(
                    *(chain, outbox, store, child, arguments.to, number),
                    parse_tao(arguments.min),
                )
                if one is not None:
                    swept.append(one)
            return swept
    finally:
        store.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", default="finney", help="ws:// URL or network name")
    parser.add_argument("--key-file", required=True, help="secret URI or mnemonic, mode 0600")
    parser.add_argument("--to", required=True, help="where everything goes (ss58)")
    parser.add_argument("--first", type=int, default=1, help="first account number")
    parser.add_argument("--last", type=int, required=True, help="last account number")
    parser.add_argument("--state", default="~/.chutes/sweep.sqlite", help="what was sent; keep it")
    parser.add_argument("--min", default="0.01", metavar="TAO", help="leave smaller balances")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
