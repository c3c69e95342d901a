"""`python -m chutes_core.chain.pay`: sends TAO from a wallet's coldkey and waits until it is final.

The child process of `chutes deposit --send`: the SDK's import and the coldkey stay out of the
command. Each step is one JSON line on standard output: ``checked``, ``sending``, ``final`` or
``error``. Invariants: it pays on the chain whose genesis its caller names, once; while an extrinsic
of the coldkey is not final it signs no other; what it leaves behind keeps the account alive.

Exit status: 0 final, 1 not (the last line says why).
"""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from chutes_core.base.errors import ChainError, ChutesError
from chutes_core.chain.client import ChainClient, transfer_call
from chutes_core.chain.coldkeys import coldkey_address, open_coldkey, wallet_of
from chutes_core.chain.connection import Patience

EXISTENTIAL_DEPOSIT_RAO = 500


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments)
    except ChutesError as error:
        facts = {"code": error.code, "message": error.message, "hint": error.hint}
        _tell("error", **facts, facts=error.facts)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--network", required=True, help="ws:// URL or network name")
    parser.add_argument("--genesis", required=True, help="hash of block 0 of the chain meant")
    parser.add_argument("--wallet-path", required=True)
    parser.add_argument("--wallet-name", required=True)
    parser.add_argument("--to", required=True, help="address")
    parser.add_argument("--rao", required=True, type=int)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds until finality")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    wallet = wallet_of(arguments.wallet_path, arguments.wallet_name)
    payer = coldkey_address(wallet)
    patience = Patience(finality_timeout_s=arguments.timeout)
    with ChainClient.connect(arguments.network, 0, patience=patience) as chain:
        if chain.genesis_hash != arguments.genesis:
            raise ChainError(
                "another_chain",
                f"{arguments.network} is not the chain that the validator works on",
                hint="name a node of the validator's chain with --network",
                genesis=chain.genesis_hash,
            )
        free_rao = chain.balance_rao(payer)
        fee_rao = chain.transfer_fee_rao(wallet.coldkeypub, arguments.to, arguments.rao)
        _tell("checked", payer=payer, free_rao=free_rao, fee_rao=fee_rao)
        if free_rao < arguments.rao + fee_rao + EXISTENTIAL_DEPOSIT_RAO:
            raise ChainError(
                "insufficient_balance",
                f"the coldkey {payer} holds {free_rao} rao, less than amount and fee",
                hint="send TAO to the coldkey, or deposit from another wallet",
                free_rao=free_rao,
                fee_rao=fee_rao,
            )
        coldkey = open_coldkey(wallet)
        _tell("sending")
        receipt = chain.call(coldkey, transfer_call(arguments.to, arguments.rao), "send the TAO")
    _tell("final", **asdict(receipt))


def _tell(event: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}, default=str) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
