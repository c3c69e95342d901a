#!/usr/bin/env python
"""Registers a hotkey on a subnet. Run it where the coldkey is, never on a neuron's host.

Shows what it costs, how long the new uid is immune and who would be pruned, asks, and pays with
the coldkey. With --max-burn the chain itself refuses a higher price. A hotkey that is registered
already is left as it is (exit 0).

Exit status: 0 registered, 1 refused (code and hint on standard error), 2 wrong usage.
"""

import argparse
import json
import sys
from dataclasses import asdict

import bittensor as bt
from bittensor_core import KeyfileError

from chutes_core.base.errors import ChutesError, Invalid, NotFound
from chutes_core.base.units import format_tao, parse_tao
from chutes_core.chain.client import ChainClient
from chutes_core.chain.coldkeys import coldkey_address, open_coldkey, wallet_of
from chutes_core.chain.registration import RegistrationOffer, check, offer, register


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except ChutesError as error:
        if arguments.json:
            print(json.dumps({"error": error.code, "detail": error.message, "hint": error.hint}))
        print(f"error: {error.message} [{error.code}]", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", default="finney", help="ws:// URL or network name")
    parser.add_argument("--netuid", type=int, required=True)
    parser.add_argument("--wallet-path", default="~/.bittensor/wallets")
    parser.add_argument("--wallet-name", required=True)
    parser.add_argument("--hotkey", required=True, help="name of the hotkey in the wallet")
    parser.add_argument("--max-burn", metavar="TAO", help="highest price; the chain enforces it")
    parser.add_argument("--dry-run", action="store_true", help="only show cost and risk")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    max_burn_rao = None if arguments.max_burn is None else parse_tao(arguments.max_burn)
    wallet = wallet_of(arguments.wallet_path, arguments.wallet_name, arguments.hotkey)
    hotkey_ss58, coldkey_ss58 = _addresses(wallet)
    with ChainClient.connect(arguments.network, arguments.netuid) as client:
        offered = offer(client, hotkey_ss58, coldkey_ss58)
        if not arguments.json:
            _show(offered)
        if offered.registered is not None:
            return _done(arguments, offered, "already_registered", uid=offered.registered.uid)
        check(offered, max_burn_rao)
        if arguments.dry_run:
            return _done(arguments, offered, "dry_run")
        if not arguments.yes and not _confirmed():
            return _done(arguments, offered, "declined", status=1)
        receipt = register(client, open_coldkey(wallet), hotkey_ss58, max_burn_rao)
        neuron = client.metagraph().by_hotkey(hotkey_ss58)
        uid = None if neuron is None else neuron.uid
        return _done(arguments, offered, "registered", uid=uid, **asdict(receipt))


def _addresses(wallet: bt.Wallet) -> tuple[str, str]:
    try:
        hotkey_file = wallet.hotkeypub_file
        if not hotkey_file.exists_on_device():
            hotkey_file = wallet.hotkey_file
        if hotkey_file.is_encrypted():
            raise Invalid(
                "hotkey_encrypted",
                f"{hotkey_file.path} is encrypted",
                hint="write the hotkey's public file beside it with btcli",
            )
        hotkey = hotkey_file.get_keypair()
    except FileNotFoundError as error:
        raise NotFound(
            "key_missing", str(error), hint="check --wallet-path, --wallet-name and --hotkey"
        ) from error
    except (KeyfileError, ValueError, OSError) as error:
        raise Invalid("bad_keyfile", f"a keyfile of the wallet cannot be read: {error}") from error
    return str(hotkey.ss58_address), coldkey_address(wallet)


def _show(offered: RegistrationOffer) -> None:
    print(f"hotkey    {offered.hotkey_ss58}")
    print(f"coldkey   {offered.coldkey_ss58}  free {format_tao(offered.balance_rao)} TAO")
    print(f"subnet    {offered.netuid}  slots {offered.slots_used} of {offered.slots_max}")
    print(f"price     {format_tao(offered.burn_rao)} TAO (it may change before the call executes)")
    print(
        f"immunity  {offered.immunity_blocks} blocks, about "
        f"{offered.immunity_seconds / 3600:.1f} hours; earn before it ends or the uid can be lost"
    )
    if not offered.full:
        print("pruning   a slot is free: nobody is replaced")
    elif offered.prune is None:
        print("pruning   all slots are taken and none can be replaced now: it would fail")
    else:
        print(
            f"pruning   all slots are taken: uid {offered.prune.uid} ({offered.prune.hotkey}) "
            "would most likely be replaced, and later registrations can replace you"
        )


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise Invalid("not_confirmed", "nobody can be asked here", hint="pass --yes")
    return input("Pay and register? [y/N] ").strip().lower() in ("y", "yes")


def _done(
    arguments: argparse.Namespace,
    offered: RegistrationOffer,
    outcome: str,
    *,
    status: int = 0,
    **facts: object,
) -> int:
    if arguments.json:
        print(json.dumps({"outcome": outcome, **asdict(offered), **facts}))
    else:
        told = ", ".join(f"{name} {value}" for name, value in facts.items())
        print(outcome.replace("_", " ") + (f": {told}" if told else ""))
    return status


if __name__ == "__main__":
    sys.exit(main())
