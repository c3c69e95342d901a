"""From inside a chute: each way out is really tried, and fails.

Only this machine's own addresses are dialled: its interfaces, a listener of the test, another
instance, and addresses in private and link-local ranges that a listener of the test could answer.
"""

import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from chutes_core.engine.connect import connect
from chutes_core.engine.run import EGRESS_LABEL, LAUNCH_LABEL, OWNER_LABEL
from scripts.localnet import miner_hotkey, wait_until
from tests.e2e.people import rich_user

FOLDER = Path(__file__).parent / "chutes"
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="session")
def prisoner(docker_net):
    """The chute, hot on the engine, and a caller for its cords."""
    user = rich_user(docker_net, str(docker_net.validator.ready["url"]))
    user.deploy("prisoner", folder=FOLDER)
    user.chutes("warmup", "prisoner")

    def call(cord, timeout=60, **body):
        url = f"{user.url}/c/demo-prisoner/{cord}"
        return httpx.post(url, json=body, headers=user.headers, timeout=timeout)

    call.user = user
    return call


@pytest.fixture
def listener():
    """A port of this host that anybody may dial, on all of its addresses."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def private_addresses():
    """Private and link-local addresses that this host itself answers on for the test's time."""
    addresses = ("10.77.66.5", "192.168.77.5", "169.254.77.5")
    for address in addresses:
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    yield addresses
    for address in addresses:
        subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)


def containers_of(number):
    client = connect(None)
    owner = miner_hotkey(number).ss58_address
    found = client.api.containers(all=True, filters={"label": f"{OWNER_LABEL}={owner}"})
    client.close()
    return found


def running():
    return [c for n in (1, 2) for c in containers_of(n) if c["Labels"].get(LAUNCH_LABEL)]


def own_addresses():
    words = subprocess.run(
        ["ip", "-4", "-o", "addr", "show"], capture_output=True, text=True, check=True
    ).stdout.split()
    inet = [words[i + 1].partition("/")[0] for i, word in enumerate(words) if word == "inet"]
    return [address for address in inet if not address.startswith("127.")]


def test_an_active_instance_is_on_the_inside_network_only(prisoner):
    """Its way out was for the start-up hooks and is cut once the launch is active."""
    assert running()

    def cut():
        return all(len(c["NetworkSettings"]["Networks"]) == 1 for c in running())

    wait_until(cut, 20, "the way out to be cut")
    for container in running():
        assert container["Labels"][EGRESS_LABEL] == "startup"
        (name,) = container["NetworkSettings"]["Networks"]
        assert name.endswith("-inside")


def test_no_port_of_the_host_answers(prisoner, listener, private_addresses):
    """Neither on the bridge's address nor on any other of the host, private or link-local."""
    targets = [f"{a}:{listener}" for a in own_addresses()]
    for target in targets:  # the control: from here they do answer
        host, _, port = target.rpartition(":")
        socket.create_connection((host, int(port)), 2).close()
    found = prisoner("dial", targets=targets).json()
    assert set(found) == set(targets)
    assert {a for a in private_addresses if f"{a}:{listener}" in found} == set(private_addresses)
    assert "open" not in found.values()


def test_nothing_can_be_written_outside_of_the_tmpfs(prisoner):
    """The root is read-only; the temporary folder and the home are writable."""
    places = ["/", "/usr", "/etc", "/opt", "/var/tmp", "/tmp", "/home/chute"]
    found = prisoner("write", paths=places).json()
    assert [place for place in places if found[place] == "written"] == ["/tmp", "/home/chute"]


def test_privileges_cannot_be_gained(prisoner):
    """No capability, no new privileges, a seccomp filter, and every attempt is refused."""
    said = prisoner("privileges").json()
    assert said["uid"] == 10001
    assert set(said["capabilities"]) == {"0000000000000000"}
    assert said["no_new_privileges"] == "1"
    assert said["seccomp"] == "2"
    assert said["refused"] == ["setuid", "chroot", "raw socket", "mount", "user namespace"]


def test_a_fork_bomb_ends_at_the_bound(prisoner):
    """The kernel refuses children beyond the limit, and the instance answers afterwards."""
    assert 0 < prisoner("fork", most=300).json() < 96
    assert prisoner("write", paths=["/tmp"]).status_code == 200


def test_too_much_memory_ends_the_instance_and_nothing_else(prisoner):
    """It gets an honest error; the container goes, and a fresh one serves."""
    before = {c["Id"] for c in running()}
    answer = prisoner("eat", mib=900)
    assert answer.status_code >= 500 or answer.status_code == 429
    assert answer.json()["code"]
    wait_until(lambda: before - {c["Id"] for c in running()}, 60, "the container to be removed")
    prisoner.user.chutes("warmup", "prisoner")
    assert prisoner("write", paths=["/tmp"]).status_code == 200
