"""The packet filter around instances: what the engine's own rules leave open is dropped here.

An internal bridge still accepts connections to the host, and a bridge with a way out reaches the
host's private neighbours. So, per miner: new connections from both bridges to the host are dropped
(INPUT); from the outside bridge to private, link-local, shared, reserved and multicast ranges, and
between the bridges (DOCKER-USER, which the engine evaluates first and never rewrites). The host may
still open connections to instances: the relay does. IPv6 is dropped wholly; instances have none.

Invariant: every rule carries the miner's mark as a comment, is set at most once, and `remove` takes
exactly these away. Whether they work is tried by `probe`, not assumed. Ranges: IANA special-purpose
address registries (RFC 6890, 2026-11).
"""

import ipaddress
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chutes_core.base.errors import Unavailable
from chutes_core.engine.networks import Networks

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
NOT_FOR_INSTANCES = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_NEW = ("-m", "conntrack", "!", "--ctstate", "ESTABLISHED,RELATED")
_DNS_PORT = "53"
_COMMAND_TIMEOUT_S = 15.0
_WAIT_S = "5"


@dataclass(frozen=True)
class Rule:
    """One rule: the tool (iptables or ip6tables), its chain, and its match and target."""

    tool: str
    chain: str
    spec: tuple[str, ...]


def rules_for(
    networks: Networks, mark: str, *, dns: Sequence[str] = (), allowed: Sequence[str] = ()
) -> tuple[Rule, ...]:
    """Return a miner's rules, in the order in which the kernel has to see them.

    Args:
        networks: of the miner.
        mark: comment on each rule.
        dns: IPv4 resolvers; where one lies in a dropped range, its port 53 is excepted.
        allowed: ranges that are excepted wholly, e.g. a package mirror in the private network.
    """
    inside, outside = networks.inside.bridge, networks.outside.bridge
    comment = ("-m", "comment", "--comment", mark)
    rules = [
        Rule("iptables", "INPUT", ("-i", bridge, *_NEW, *comment, "-j", "DROP"))
        for bridge in (inside, outside)
    ]
    rules += [
        Rule("ip6tables", "INPUT", ("-i", bridge, *comment, "-j", "DROP"))
        for bridge in (inside, outside)
    ]
    for address in dns:
        for protocol in ("udp", "tcp"):
            match = ("-i", outside, "-d", f"{address}/32", "-p", protocol, "--dport", _DNS_PORT)
            rules.append(Rule("iptables", "DOCKER-USER", (*match, *comment, "-j", "RETURN")))
    rules += [
        Rule("iptables", "DOCKER-USER", ("-i", outside, "-d", range_, *comment, "-j", "RETURN"))
        for range_ in allowed
    ]
    rules += [
        Rule("iptables", "DOCKER-USER", ("-i", outside, "-d", range_, *comment, "-j", "DROP"))
        for range_ in NOT_FOR_INSTANCES
    ]
    rules += [
        Rule("iptables", "DOCKER-USER", ("-i", one, "-o", other, *comment, "-j", "DROP"))
        for one, other in ((inside, outside), (outside, inside))
    ]
    return tuple(rules)


def host_resolvers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """Return the IPv4 resolvers of this host that a container can reach too (no loopback ones)."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ()
    named = [
        words[1] for words in map(str.split, lines) if words[:1] == ["nameserver"] and words[1:]
    ]
    return tuple(text for text in named if _is_reachable_v4(text))


class Firewall:
    """Sets and removes the rules; needs root or CAP_NET_ADMIN."""

    def __init__(self, run: Run | None = None) -> None:
        self._run = run or run_tool

    def check(self) -> None:
        """Check that rules could be set, without setting any.

        Raises:
            Unavailable: ``firewall_unavailable``.
        """
        for chain in ("INPUT", "DOCKER-USER"):
            self._iptables("iptables", "-S", chain, (), must=True)

    def ensure(self, rules: Sequence[Rule]) -> int:
        """Set the rules that are missing and return how many were.

        Raises:
            Unavailable: ``firewall_unavailable`` with what iptables said.
        """
        missing = [rule for rule in rules if not self._is_set(rule)]
        for tool in sorted({rule.tool for rule in missing}):
            same = [rule for rule in rules if rule.tool == tool]
            # Set anew as a whole, for their order counts; at the top, last first, because a chain
            # that ends with RETURN never reaches an appendix.
            self.remove(same)
            for rule in reversed(same):
                self._iptables(rule.tool, "-I", rule.chain, rule.spec, must=tool == "iptables")
        return len(missing)

    def remove(self, rules: Sequence[Rule]) -> None:
        """Take the rules away, each as often as it is there."""
        for rule in rules:
            while self._is_set(rule):
                self._iptables(rule.tool, "-D", rule.chain, rule.spec, must=True)

    def _is_set(self, rule: Rule) -> bool:
        return self._iptables(rule.tool, "-C", rule.chain, rule.spec, must=False)

    def _iptables(
        self, tool: str, action: str, chain: str, spec: Sequence[str], *, must: bool
    ) -> bool:
        try:
            done = self._run([tool, "-w", _WAIT_S, action, chain, *spec])
        except FileNotFoundError as error:
            if not must:
                return False
            raise _unavailable(f"there is no {tool} command") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unavailable(f"{tool} could not be run: {error}") from error
        if done.returncode != 0 and must:
            raise _unavailable(f"{tool} said: {done.stderr.strip()[-300:]}")
        return done.returncode == 0


def _unavailable(text: str) -> Unavailable:
    return Unavailable(
        "firewall_unavailable",
        f"the rules that keep instances from this host cannot be set: {text}",
        hint="Linux with iptables, and root or CAP_NET_ADMIN in the engine's network namespace",
    )


def _is_reachable_v4(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback


def run_tool(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run one of the packet filter's tools, wherever it lies.

    Raises:
        OSError, TimeoutExpired: it is not there, or hangs.
    """
    # Services often run without /usr/sbin on their PATH, where iptables lies.
    program = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin:/sbin")
    if program is None:
        raise FileNotFoundError(command[0])
    return subprocess.run(
        [program, *command[1:]],
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )
