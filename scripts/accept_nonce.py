#!/usr/bin/env python
"""Lets an outbox go on after `foreign_nonce`, once you know who else signed with the key.

An outbox sends no money with a nonce that it did not expect: the key was used elsewhere, or the
data folder is an old copy, and then an older transfer may be paid twice. Look at the key's
extrinsics first (a block explorer shows them), stop the process that owns the database, and name
the nonce that the log names as the chain's. What was accepted, when and why stays in the database.

Exit status: 0 accepted, 1 refused (code and hint on standard error), 2 bad usage.
"""

import argparse
import json
import sys
from pathlib import Path

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError, NotFound
from chutes_core.validator.store.database import Store


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        accepted = accept(
            Path(arguments.data).expanduser(), arguments.key, arguments.nonce, arguments.reason
        )
    except ChutesError as error:
        print(f"error: {error.message} [{error.code}]", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(accepted))
    else:
        print("the outbox goes on for {key} from {nonce} (it was {expected})".format_map(accepted))
    return 0


def accept(data: Path, key_ss58: str, nonce: int, reason: str) -> dict[str, object]:
    """Write the decision down and return it.

    Raises:
        NotFound: ``no_database``.
        ChutesError: as OutboxRows.accept_nonce.
    """
    if not data.is_file():
        raise NotFound(
            "no_database", f"{data} is no file", hint="name signer.sqlite or sweep.sqlite"
        )
    store = Store(data)
    try:
        expected = store.outbox.next_nonce(key_ss58)
        store.outbox.accept_nonce(key_ss58, nonce, reason=reason, at_s=SystemClock().now_s())
        return {"key": key_ss58, "nonce": nonce, "expected": expected, "reason": reason}
    finally:
        store.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="signer.sqlite, or the sweep's --state")
    parser.add_argument("--key", required=True, help="address whose nonce it is (ss58)")
    parser.add_argument("--nonce", required=True, type=int, help="the chain's nonce, from the log")
    parser.add_argument("--reason", required=True, help="what you found out; it is kept")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
