"""From inside a chute: each way out is really tried, and fails.

Only addresses of the test's own are dialled (interfaces of this host, a neighbour in a network
namespace, other instances), and once, after the cut, a public one.
"""

import contextlib
import json
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import httpx
import pytest

from chutes_core.engine.connect import connect
from chutes_core.engine.networks import ensure_networks
from chutes_core.engine.run import (
    EGRESS_LABEL,
    LAUNCH_LABEL,
    OWNER_LABEL,
    Containers,
    ContainerSpec,
    Limits,
)
from scripts.localnet import miner_hotkey, wait_until
from tests.docker.siege import Siege
from tests.e2e.patience import CALL_S, PATIENCE_S
from tests.e2e.people import rich_user

FOLDER = Path(__file__).parent / "chutes"
pytestmark = pytest.mark.timeout(400)


PUBLIC = "203.0.113.9"  # TEST-NET-3: to the rules an address like any outside
PRIVATE = ("10.66.7.9", "100.64.66.9", "169.254.66.9", "172.16.66.9", "192.168.66.9")
LISTEN = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print(server.getsockname()[1], flush=True)
while True:
    server.accept()[0].close()
"""


def run(*words):
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture(scope="session")
def neighbour():
    """A machine beside this host: its port, open on a public address and on private ones."""
    mark = uuid.uuid4().hex[:8]
    outer, inner = f"ct{mark}o", f"ct{mark}i"
    process = subprocess.Popen(
        ["unshare", "--net", "--", sys.executable, "-I", "-S", "-c", LISTEN, "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = int(process.stdout.readline())
        pid = str(process.pid)
        within = ("nsenter", "--target", pid, "--net", "ip")
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", pid)
        run("ip", "addr", "add", "203.0.113.10/32", "dev", outer)
        run("ip", "link", "set", outer, "up")
        run(*within, "link", "set", inner, "up")
        for address in (PUBLIC, *PRIVATE):
            run(*within, "addr", "add", f"{address}/32", "dev", inner)
            run("ip", "route", "add", f"{address}/32", "dev", outer)
        run(*within, "route", "add", "default", "dev", inner)
        for address in (PUBLIC, *PRIVATE):  # the control: from here they do answer
            socket.create_connection((address, port), 2).close()
        yield port
    finally:
        process.kill()  # its namespace, the link and the routes end with it
        process.communicate()


@pytest.fixture(scope="module")
def prisoner(docker_net, neighbour):
    """The chute, hot on the engine, and a caller for its cords; its GPU is free afterwards."""
    user = rich_user(docker_net, str(docker_net.validator.ready["url"]))
    own = docker_net.folder / "prisoner"
    own.mkdir()
    targets = [f"{address}:{neighbour}" for address in (PUBLIC, *PRIVATE)]
    text = (FOLDER / "prisoner.py").read_text()
    changed = text.replace("AT_START: list[str] = []", f"AT_START: list[str] = {targets}")
    assert changed != text
    (own / "prisoner.py").write_text(changed)
    user.deploy("prisoner", folder=own)
    user.chutes("warmup", "prisoner")

    def call(cord, timeout=CALL_S, **body):
        url = f"{user.url}/c/demo-prisoner/{cord}"
        return httpx.post(url, json=body, headers=user.headers, timeout=timeout)

    call.user = user
    call.folder = own
    yield call
    user.chutes("chutes", "delete", "prisoner", "--yes")


@pytest.fixture
def other_chute(prisoner):
    """Another chute of the same user and image, hot; where its runner listens."""
    before = {one["Id"] for one in running()}
    folder = prisoner.folder / "other"
    folder.mkdir()
    text = (prisoner.folder / "prisoner.py").read_text()
    old = 'chute = Chute(\n    username="demo",\n    name="prisoner",'
    assert old in text
    new = old.replace("prisoner", "other")
    (folder / "other.py").write_text(text.replace(old, new))
    prisoner.user.deploy_built("other", folder=folder)
    prisoner.user.chutes("warmup", "other")
    yield [address_of(one) for one in running() if one["Id"] not in before]
    prisoner.user.chutes("chutes", "delete", "other", "--yes")


@pytest.fixture
def neighbours_on_the_bridge(prisoner):
    """A listening container on each miner's inside network, as another chute's would be."""
    client = connect(None)
    places = Containers(client, f"test-{uuid.uuid4()}")
    found = []
    try:
        for number in (1, 2):
            inside = ensure_networks(client, miner_hotkey(number).ss58_address).inside
            launch_id = str(uuid.uuid4())
            places.start(
                ContainerSpec(
                    launch_id=launch_id,
                    owner=places._owner,
                    image="parachutes/python:3.12",
                    entrypoint=("python3", "-c", LISTEN, "8000"),
                    environment={},
                    inside=inside,
                    outside=None,
                    egress="startup",
                    limits=Limits(memory_bytes=128 << 20, nano_cpus=10**9, shm_bytes=16 << 20),
                )
            )
            found.append(f"{places.find(launch_id).networks[inside.name]}:8000")
        yield found
    finally:
        for seen in places.all():
            places.remove(seen.container_id)
        client.close()


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


def address_of(container):
    """Where an instance's runner listens, from its ready line and the engine."""
    client = connect(None)
    try:
        said = client.api.logs(container["Id"], stdout=True, stderr=False).decode()
    finally:
        client.close()
    (port,) = {json.loads(line)["port"] for line in said.splitlines() if '"public_key"' in line}
    networks = container["NetworkSettings"]["Networks"]
    (address,) = [one["IPAddress"] for name, one in networks.items() if name.endswith("-inside")]
    return f"{address}:{port}"


def is_open(target, timeout_s=2):
    host, _, port = target.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port)), timeout_s).close()
        return True
    return False


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

    wait_until(cut, PATIENCE_S, "the way out to be cut")
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


def test_the_way_out_of_the_start_up_leads_to_no_private_neighbour(prisoner):
    """The start-up hook reached the public address, and beside it nothing private."""
    found = prisoner("at_start").json()
    reached = {target.partition(":")[0] for target, how in found.items() if how == "open"}
    assert len(found) == 1 + len(PRIVATE)
    assert reached == {PUBLIC}


def test_nothing_outside_is_reached_after_the_cut(prisoner, neighbour):
    """What the start-up hook reached it reaches no more, nor a public address."""
    wait_until(
        lambda: all(len(c["NetworkSettings"]["Networks"]) == 1 for c in running()),
        PATIENCE_S,
        "the way out to be cut",
    )
    targets = [f"{PUBLIC}:{neighbour}", "1.1.1.1:443"]
    assert is_open(targets[0])
    found = prisoner("dial", targets=targets, timeout_s=2.0).json()
    assert set(found) == set(targets)
    assert "open" not in found.values()


def test_no_other_chute_is_reached(prisoner, other_chute, neighbours_on_the_bridge):
    """Neither an instance of another chute nor a container on the very same bridge answers."""
    targets = [*other_chute, *neighbours_on_the_bridge]
    assert len(other_chute) >= 1
    assert len(neighbours_on_the_bridge) == 2
    for target in targets:  # the control: this host, as the relay, does reach them
        wait_until(
            lambda target=target: is_open(target), PATIENCE_S, f"{target} to answer the host"
        )
    found = prisoner("dial", targets=targets).json()
    assert set(found) == set(targets)
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


def test_a_program_of_root_runs_without_its_rights(prisoner):
    """The setuid bit does nothing inside; the control, without the hardening, does become root."""
    client = connect(None)
    image = running()[0]["ImageID"]
    code = "import os; print(*os.getresuid()); print(open('/usr/local/of-root').read())"
    made = client.api.create_container(
        image, entrypoint=["/usr/local/bin/rooted-python", "-I", "-S", "-c", code], user="10001"
    )
    try:
        client.api.start(made["Id"])
        client.api.wait(made["Id"], timeout=PATIENCE_S)
        assert client.api.logs(made["Id"]).decode().split() == ["10001", "0", "0", "secret"]
    finally:
        client.api.remove_container(made["Id"], force=True, v=True)
        client.close()
    said, refused = prisoner("rooted").json()
    assert said.split() == ["10001", "10001", "10001"]
    assert "PermissionError" in refused


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
    wait_until(
        lambda: before - {c["Id"] for c in running()}, PATIENCE_S, "the container to be removed"
    )
    prisoner.user.chutes("warmup", "prisoner")
    assert prisoner("write", paths=["/tmp"]).status_code == 200


def test_all_of_it_is_contained_and_the_operator_sees_that_it_was_tried(prisoner, docker_net):
    """A round of every try gives nothing; the miner's log and status tell it, with counts."""
    wait_until(
        lambda: prisoner("write", paths=["/tmp"]).status_code == 200, PATIENCE_S, "it to serve"
    )
    siege = Siege(docker_net, prisoner.user)
    siege.round()
    wait_until(siege.seen, PATIENCE_S, "the operator to see the tries")
    assert siege.events() >= 2
