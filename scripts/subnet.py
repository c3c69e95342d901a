#!/usr/bin/env python
"""Compares a subnet's hyperparameters with what we recommend, and prints how to change them.

check   each value, what is recommended and why
plan    the extrinsics that the owner (or the chain's root) would send; nothing is signed or sent

Exit status: 0 as recommended (plan: printed), 1 error (code and hint on standard error), 2 wrong
usage, 3 check found differences.
"""

import argparse
import json
import sys
from dataclasses import asdict

from chutes_core.base.errors import ChutesError
from chutes_core.chain.client import ChainClient
from chutes_core.chain.hyperparameters import (
    Finding,
    Planned,
    judge,
    owner_problems,
    plan,
    read_values,
)

EXIT_DIFFERS = 3


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        with ChainClient.connect(arguments.network, arguments.netuid) as client:
            return _run(arguments, client)
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
    parser.add_argument("command", choices=("check", "plan"))
    parser.add_argument("--network", default="finney", help="ws:// URL or network name")
    parser.add_argument("--netuid", type=int, required=True)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _run(arguments: argparse.Namespace, client: ChainClient) -> int:
    subnet = client.subnet()
    hotkeys = frozenset(neuron.hotkey for neuron in client.metagraph().neurons)
    findings = judge(read_values(client))
    problems = owner_problems(subnet, hotkeys)
    if arguments.command == "plan":
        planned = plan(client, findings)
        print(_plan_json(arguments.netuid, planned) if arguments.json else _plan_text(planned))
        return 0
    ok = not problems and all(finding.ok for finding in findings)
    if arguments.json:
        checks = [asdict(finding) for finding in findings]
        head = {"netuid": arguments.netuid, "block": subnet.block, "ok": ok}
        print(json.dumps({**head, "checks": checks, "owner": list(problems)}))
    else:
        print("\n".join([*map(_line, findings), *(f"owner  {text}" for text in problems)]))
    return 0 if ok else EXIT_DIFFERS


def _line(finding: Finding) -> str:
    wanted = str(finding.low)
    if finding.low != finding.high:
        wanted = f"{finding.low} to {finding.high}"
    if finding.ok:
        return f"ok     {finding.name} = {finding.value} ({wanted})"
    return f"differs {finding.name} = {finding.value}, recommended {wanted}: {finding.reason}"


def _plan_json(netuid: int, planned: tuple[Planned, ...]) -> str:
    return json.dumps({"netuid": netuid, "extrinsics": [asdict(one) for one in planned]})


def _plan_text(planned: tuple[Planned, ...]) -> str:
    if not planned:
        return "nothing to do"
    blocks = (
        f"# signed by the {'subnet owner' if p.signer == 'owner' else 'root of the chain'}\n"
        f"{p.command}\n# call data {p.call_data}"
        for p in planned
    )
    return "\n\n".join(blocks)


if __name__ == "__main__":
    sys.exit(main())
