"""No instance off a devnet without walls that were tried; on a devnet it is said that they lack."""

import subprocess

import pytest
from loguru import logger

from chutes_core.base.errors import Unavailable
from chutes_core.engine.firewall import Firewall
from chutes_core.engine.networks import Network, Networks
from chutes_core.engine.probe import Walls as Tried
from chutes_core.miner.runtime import walls as room
from chutes_core.miner.runtime.walls import Walls

NETWORKS = Networks(
    Network("i", "chi-1", "172.30.0.0/16", "172.30.0.1"),
    Network("o", "cho-1", "172.31.0.0/16", "172.31.0.1"),
)


def no_iptables(command):
    raise FileNotFoundError(command[0])


def not_root(command):
    code = 1 if "-C" in command else 4
    return subprocess.CompletedProcess(command, code, "", "Permission denied (you must be root)")


class Accepting:
    """iptables that takes every rule, and remembers which are set."""

    def __init__(self):
        self.rules = []

    def __call__(self, command):
        _, _, _, action, *rule = command
        known = rule in self.rules
        if action == "-I":
            self.rules.insert(0, rule)
        elif action == "-D" and known:
            self.rules.remove(rule)
        return subprocess.CompletedProcess(command, 0 if known or action == "-I" else 1, "", "")


def holds(_):
    return Tried(())


def leaks(network):
    return Tried((f"the host at {network.gateway}",))


def cannot_try(_):
    raise Unavailable("walls_not_tried", "no network namespace could be made", hint="root")


REFUSALS = [
    pytest.param(no_iptables, holds, "firewall_unavailable", id="no iptables"),
    pytest.param(not_root, holds, "firewall_unavailable", id="not root"),
    pytest.param(Accepting(), leaks, "walls_leak", id="a rule that does not hold"),
    pytest.param(Accepting(), cannot_try, "walls_not_tried", id="a try that cannot be made"),
]


@pytest.fixture(autouse=True)
def engine_networks(monkeypatch):
    """The engine's part, which is not what is tested here."""
    monkeypatch.setattr(room, "ensure_networks", lambda client, owner: NETWORKS)


@pytest.fixture
def said():
    """Records of the log at warning and above."""
    records = []
    sink = logger.add(lambda message: records.append(message.record), level="WARNING")
    yield records
    logger.remove(sink)


def walls(run, probe):
    return Walls(None, "5Owner", dns=(), firewall=Firewall(run), probe=probe)


@pytest.mark.parametrize(("run", "probe", "code"), REFUSALS)
def test_off_a_devnet_the_miner_refuses_without_walls(run, probe, code):
    """The error has a code and says what to do; nothing counts as standing."""
    tried = walls(run, probe)
    with pytest.raises(Unavailable) as refused:
        tried.raise_up(is_devnet=False)
    assert refused.value.code == code
    assert refused.value.hint
    assert not tried.stand


@pytest.mark.parametrize(("run", "probe", "code"), REFUSALS)
def test_on_a_devnet_the_lack_is_said_and_accepted(run, probe, code, said):
    """One warning with the code; upkeep then does not claim that rules came back."""
    tried = walls(run, probe)
    assert tried.raise_up(is_devnet=True) is NETWORKS
    (record,) = said
    assert record["extra"]["code"] == code
    assert "NOT kept from this host" in record["message"]
    assert not tried.stand
    tried.keep()
    assert len(said) == 1


@pytest.mark.parametrize("is_devnet", [True, False])
def test_walls_that_hold_stand_without_a_warning(is_devnet, said):
    """Both networks are tried, and nothing is said that is not so."""
    asked = []
    tried = walls(Accepting(), lambda network: asked.append(network.name) or Tried(()))
    tried.raise_up(is_devnet=is_devnet)
    assert tried.stand
    assert asked == ["i", "o"]
    assert not said


def test_rules_that_somebody_flushed_come_back_with_a_word(said):
    """Upkeep sets them again, and says so once."""
    kernel = Accepting()
    tried = walls(kernel, holds)
    tried.raise_up(is_devnet=False)
    before = list(kernel.rules)
    kernel.rules.clear()
    tried.keep()
    tried.keep()
    assert kernel.rules == before
    assert [record["extra"]["code"] for record in said] == ["firewall_restored"]
