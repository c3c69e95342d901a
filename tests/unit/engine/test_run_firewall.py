"""The rules around instances: which, in which order, set once, taken away wholly."""

import subprocess

import pytest

from chutes_core.base.errors import Unavailable
from chutes_core.engine.firewall import NOT_FOR_INSTANCES, Firewall, host_resolvers, rules_for
from chutes_core.engine.networks import Network, Networks

NETWORKS = Networks(
    Network("i", "chi-1", "172.30.0.0/16", "172.30.0.1"),
    Network("o", "cho-1", "172.31.0.0/16", "172.31.0.1"),
)


class Kernel:
    """iptables in memory: chains as lists of (tool, chain, rule)."""

    def __init__(self, *, broken=(), refuses=""):
        self.rules = []
        self.broken = broken
        self.refuses = refuses

    def __call__(self, command):
        tool, _, _, action, chain, *spec = command
        if tool in self.broken:
            raise FileNotFoundError(tool)
        if self.refuses and action == "-I":
            return subprocess.CompletedProcess(command, 4, "", self.refuses)
        rule = (tool, chain, tuple(spec))
        if action == "-I":
            self.rules.insert(0, rule)
        elif rule not in self.rules:
            return subprocess.CompletedProcess(command, 1, "", "no such rule")
        elif action == "-D":
            self.rules.remove(rule)
        return subprocess.CompletedProcess(command, 0, "", "")

    def chain(self, name, tool="iptables"):
        return [" ".join(spec) for one, chain, spec in self.rules if (one, chain) == (tool, name)]


def test_new_connections_to_the_host_are_dropped_from_both_bridges():
    """Answers to the host's own connections still pass: the relay dials in."""
    kernel = Kernel()
    Firewall(kernel).ensure(rules_for(NETWORKS, "m"))
    for bridge, rule in zip(("chi-1", "cho-1"), kernel.chain("INPUT"), strict=True):
        assert rule.startswith(f"-i {bridge} -m conntrack ! --ctstate ESTABLISHED,RELATED")
        assert rule.endswith("-j DROP")
    assert len(kernel.chain("INPUT", "ip6tables")) == 2


def test_private_ranges_are_dropped_behind_their_exceptions():
    """A resolver's port and an allowed range come before the drops, or they would never match."""
    kernel = Kernel()
    rules = rules_for(NETWORKS, "m", dns=("10.0.0.53",), allowed=("10.9.0.0/16",))
    Firewall(kernel).ensure(rules)
    chain = kernel.chain("DOCKER-USER")
    assert [rule.rpartition(" ")[2] for rule in chain[:3]] == ["RETURN"] * 3
    assert "10.0.0.53/32 -p udp --dport 53" in chain[0]
    assert "10.9.0.0/16" in chain[2]
    dropped = [rule for rule in chain[3:] if " -d " in rule]
    assert [rule.split()[3] for rule in dropped] == list(NOT_FOR_INSTANCES)
    assert all(rule.endswith("DROP") for rule in chain[3:])


def test_rules_are_set_once_and_again_only_when_missing():
    """Setting them twice changes nothing; one that somebody removed comes back in its place."""
    kernel = Kernel()
    firewall, rules = Firewall(kernel), rules_for(NETWORKS, "m", dns=("10.0.0.53",))
    assert firewall.ensure(rules) == len(rules)
    before = list(kernel.rules)
    assert firewall.ensure(rules) == 0
    kernel.rules.remove(next(r for r in kernel.rules if "10.0.0.0/8" in r[2]))
    assert firewall.ensure(rules) == 1
    assert kernel.chain("DOCKER-USER") == [
        " ".join(spec)
        for tool, chain, spec in before
        if (tool, chain) == ("iptables", "DOCKER-USER")
    ]


def test_taking_them_away_leaves_other_rules_alone():
    """Only what carries our mark goes, however often it is there."""
    kernel = Kernel()
    kernel.rules.append(("iptables", "INPUT", ("-i", "eth0", "-j", "DROP")))
    firewall, rules = Firewall(kernel), rules_for(NETWORKS, "m")
    firewall.ensure(rules)
    kernel.rules.append((rules[0].tool, rules[0].chain, rules[0].spec))
    firewall.remove(rules)
    assert kernel.rules == [("iptables", "INPUT", ("-i", "eth0", "-j", "DROP"))]


@pytest.mark.parametrize(
    "kernel", [Kernel(broken=("iptables",)), Kernel(refuses="Permission denied (you must be root)")]
)
def test_a_filter_that_cannot_be_set_is_an_error_with_a_fix(kernel):
    """No instance is started behind a wall that is none."""
    with pytest.raises(Unavailable) as caught:
        Firewall(kernel).ensure(rules_for(NETWORKS, "m"))
    assert caught.value.code == "firewall_unavailable"
    assert "root" in caught.value.hint


def test_a_host_without_ip6tables_has_rules_all_the_same():
    """Instances have no IPv6; those rules are a second lock."""
    kernel = Kernel(broken=("ip6tables",))
    Firewall(kernel).ensure(rules_for(NETWORKS, "m"))
    assert kernel.chain("INPUT")


def test_only_resolvers_that_a_container_reaches_are_read(tmp_path):
    """Loopback resolvers and IPv6 ones are left out; a missing file gives none."""
    path = tmp_path / "resolv.conf"
    path.write_text("search x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fd00::1\n")
    assert host_resolvers(path) == ("10.0.0.2",)
    assert host_resolvers(tmp_path / "none") == ()
