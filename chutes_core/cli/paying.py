"""Sends TAO through a child process that holds the chain library and the coldkey.

Below `chutes deposit --send`. Invariants: no coldkey is opened in this process; once the child has
said that it is sending, every failure says that the money may be on its way.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chutes_core.base.errors import ChainError, Invalid, NotFound
from chutes_core.base.units import format_tao
from chutes_core.cli.options import note

_LOOK_FIRST = "it may be on its way: look with chutes deposit before you send again"


@dataclass(frozen=True)
class Payment:
    """What is sent, on which chain, from which wallet."""

    network: str
    genesis_hash: str
    wallet_path: str
    wallet_name: str
    to_ss58: str
    rao: int
    timeout_s: float


def send(payment: Payment) -> dict[str, Any]:
    """Send it and return where it is final (payer, fee_rao, extrinsic_hash, block_hash).

    Raises:
        NotFound: ``chain_library_missing``. Invalid, ChainError: as the child says.
    """
    if importlib.util.find_spec("bittensor") is None:
        raise NotFound(
            "chain_library_missing",
            "sending needs the bittensor package, which is not installed",
            hint="pip install 'chutes-core[wallet]', or pay the address from any other wallet",
        )
    seen: dict[str, Any] = {}
    for line in _lines(_command(payment)):
        event = line.pop("event")
        seen |= {"event": event, **line}
        if event == "checked":
            note(f"from {line['payer']}, fee about {format_tao(line['fee_rao'])} TAO")
        elif event == "sending":
            seen["sending"] = True
            note("sent when the node has it; waiting until it is final")
        elif event == "error":
            raise _error(line, sending=bool(seen.get("sending")))
    if seen.get("event") != "final":
        hint = _LOOK_FIRST if seen.get("sending") else "run it again"
        raise ChainError(
            "payment_cut", "the payment ended without an answer", hint=hint, http_status=502
        )
    return seen


def _command(payment: Payment) -> list[str]:
    return [
        *(sys.executable, "-m", "chutes_core.chain.pay"),
        *("--network", payment.network, "--genesis", payment.genesis_hash),
        *("--wallet-path", payment.wallet_path, "--wallet-name", payment.wallet_name),
        *("--to", payment.to_ss58, "--rao", str(payment.rao)),
        *("--timeout", str(payment.timeout_s)),
    ]


def _lines(command: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the child's lines; it asks for a password on the terminal, past these pipes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for text in child.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # a library's own words
            if isinstance(line, dict) and "event" in line:
                yield line


def _error(line: dict[str, Any], *, sending: bool) -> Invalid | ChainError:
    if line["code"] in _WALLET:
        return Invalid(line["code"], line["message"], hint=line["hint"])
    hint = _LOOK_FIRST if sending and line["code"] in _UNCERTAIN else line["hint"]
    facts = {"http_status": 502, **dict(line["facts"])}  # refused by the chain: exit code 1
    return ChainError(line["code"], line["message"], hint=hint, **facts)


_WALLET = frozenset({"key_missing", "bad_keyfile", "coldkey_missing", "coldkey_locked"})
_UNCERTAIN = frozenset(
    {"chain_unreachable", "chain_timeout", "chain_closed", "extrinsic_unknown", "chain"}
)
"""Codes that leave open whether the chain has it."""
