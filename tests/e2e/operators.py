"""What a miner's operator sees."""

import json

from scripts.localnet import wait_until
from tests.e2e.patience import PATIENCE_S


def status_of(net, number, extra=None):
    """Return a running miner's status; one that is too busy for its operator is asked again."""
    said = []

    def told():
        said.append(net.ask_miner(number, "status", "--json", extra=extra))
        return said[-1].returncode == 0

    wait_until(told, PATIENCE_S, f"the status of miner {number}")
    return json.loads(said[-1].stdout)
