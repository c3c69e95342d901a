"""Tries, from a place like a container's, whether the walls around instances hold.

Two processes in network namespaces of their own are plugged into the miner's inside bridge, as the
engine would plug containers in, and try to reach this host and each other. Needs no image. A
control comes first: the host must reach them, else "nothing got through" would prove nothing.

Path: miner start-up -> `try_walls` -> `Walls`. Linux, root (CAP_NET_ADMIN and CAP_SYS_ADMIN),
`ip`, `unshare` and `nsenter`. Invariant: only this host's own addresses and the two places are
dialled; both places and their interfaces end with the call.
"""

import contextlib
import ipaddress
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chutes_core.base.errors import Unavailable
from chutes_core.engine.networks import Network

_COMMAND_TIMEOUT_S = 10.0
_TRY_S = 1.0
_Target = tuple[str, int]

# Runs inside a place: listens, says its port, then tries each target that is sent and answers.
_PLACE = """
import json, socket, sys, threading
server = socket.create_server(("0.0.0.0", 0))
threading.Thread(target=lambda: [server.accept() for _ in iter(int, 1)], daemon=True).start()
print(server.getsockname()[1], flush=True)
for line in sys.stdin:
    found = {}
    def dial(host, port):
        try:
            socket.create_connection((host, port), %s).close()
            found[f"{host}:{port}"] = True
        except OSError:
            found[f"{host}:{port}"] = False
    tries = [threading.Thread(target=dial, args=target) for target in json.loads(line)]
    for one in tries: one.start()
    for one in tries: one.join()
    print(json.dumps(found), flush=True)
"""


@dataclass(frozen=True)
class Walls:
    """What got through; empty is what it has to be."""

    leaks: tuple[str, ...]


def try_walls(network: Network) -> Walls:
    """Try to get from the network to this host and to a neighbour.

    Raises:
        Unavailable: ``walls_not_tried``: the try itself could not be made.
    """
    subnet = ipaddress.ip_network(network.subnet)
    first, second = str(subnet[-3]), str(subnet[-4])
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(socket.create_server(("0.0.0.0", 0)))  # noqa: S104 - closed soon
        host_port = int(host.getsockname()[1])
        one = stack.enter_context(_place(network, first, subnet.prefixlen))
        other = stack.enter_context(_place(network, second, subnet.prefixlen))
        _control(first, one.port)
        _control(second, other.port)
        targets = [(address, host_port) for address in _own_addresses(network)]
        got = one.try_all([*targets, (second, other.port)])
    leaks = [f"the host at {ip}" for ip, port in targets if got.get(f"{ip}:{port}")]
    if got.get(f"{second}:{other.port}"):
        leaks.append("another instance")
    return Walls(tuple(leaks))


@dataclass(frozen=True)
class _Place:
    process: "subprocess.Popen[str]"
    port: int

    def try_all(self, targets: Sequence[_Target]) -> dict[str, bool]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(targets) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))


@contextlib.contextmanager
def _place(network: Network, address: str, prefix_bits: int) -> Iterator[_Place]:
    mark = secrets.token_hex(4)
    outer, inner = f"cp{mark}o", f"cp{mark}i"
    command = ["unshare", "--net", "--", sys.executable, "-I", "-S", "-c", _PLACE % _TRY_S]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={}
        )
    except OSError as error:
        raise _not_tried(str(error)) from error
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()  # it is in its namespace by now
        if not port:
            raise _not_tried("no network namespace could be made")
        pid = str(process.pid)
        _command("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", pid)
        _command("ip", "link", "set", outer, "master", network.bridge, "up")
        within = ("nsenter", "--target", pid, "--net", "ip")
        _command(*within, "addr", "add", f"{address}/{prefix_bits}", "dev", inner)
        _command(*within, "link", "set", inner, "up")
        _command(*within, "route", "add", "default", "via", network.gateway)
        yield _Place(process, int(port))
    finally:
        process.kill()  # its namespace ends with it, and the veth pair with the namespace
        process.communicate()


def _control(address: str, port: int) -> None:
    """Check that the host reaches a place; an interface takes a moment to come up."""
    for left in reversed(range(5)):
        try:
            socket.create_connection((address, port), _TRY_S).close()
            return
        except OSError as error:
            if left == 0:
                raise _not_tried(f"the host does not reach {address}: {error}") from error


def _own_addresses(network: Network) -> list[str]:
    """Return this host's IPv4 addresses, the bridge's own first."""
    listed = json.loads(_command("ip", "-json", "-4", "addr", "show"))
    found = [entry["local"] for link in listed for entry in link.get("addr_info", ())]
    others = [ip for ip in found if not ip.startswith("127.") and ip != network.gateway]
    return [network.gateway, *others]


def _command(*words: str) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_tried(f"{words[0]}: {error}") from error
    if done.returncode != 0:
        raise _not_tried(f"`{' '.join(words)}`: {done.stderr.strip()[-200:]}")
    return done.stdout


def _not_tried(text: str) -> Unavailable:
    return Unavailable(
        "walls_not_tried",
        f"whether instances are kept from this host could not be tried: {text}",
        hint="it takes root on Linux, with iproute2 and util-linux",
    )
