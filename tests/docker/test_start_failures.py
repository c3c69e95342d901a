"""What an engine refuses: a cause, a fix, and no container left behind."""

import uuid

import pytest

from chutes_core.base.errors import ChutesError
from chutes_core.engine.connect import connect
from chutes_core.engine.networks import ensure_networks, remove_networks
from chutes_core.engine.run import Containers, ContainerSpec, Limits
from scripts.runtimes import BASE_IMAGE, ensure_base_image

MIB = 1 << 20


@pytest.fixture
def place():
    """Networks and containers of an owner of the test's own."""
    ensure_base_image()
    client, owner = connect(None), f"test-{uuid.uuid4()}"
    networks = ensure_networks(client, owner)
    containers = Containers(client, owner)
    yield containers, networks, owner
    for seen in containers.all():
        containers.remove(seen.container_id)
    remove_networks(client, owner)
    client.close()


def spec_of(place, **changes):
    _, networks, owner = place
    values = {
        "launch_id": str(uuid.uuid4()),
        "owner": owner,
        "image": BASE_IMAGE,
        "entrypoint": ("python3", "-c", "import time; time.sleep(60)"),
        "environment": {},
        "inside": networks.inside,
        "outside": networks.outside,
        "egress": "startup",
        "limits": Limits(memory_bytes=128 * MIB, nano_cpus=10**9, shm_bytes=16 * MIB),
    }
    return ContainerSpec(**{**values, **changes})


def test_a_container_starts_on_both_networks_and_loses_its_way_out(place):
    """The control for what follows: it runs, is found by its labels, and is cut off."""
    containers, networks, _ = place
    spec = spec_of(place)
    containers.start(spec)
    seen = containers.find(spec.launch_id)
    assert seen.exit_code is None
    assert set(seen.networks) == {networks.inside.name, networks.outside.name}
    assert containers.cut(seen, networks.outside)
    assert set(containers.find(spec.launch_id).networks) == {networks.inside.name}
    assert not containers.cut(containers.find(spec.launch_id), networks.outside)
    containers.remove(seen.container_id)
    assert containers.all() == ()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"gpu_uuids": ("GPU-00000000-0000-0000-0000-000000000000",)}, "gpu_runtime_missing"),
        ({"image": "sha256:" + "0" * 64}, "no_such_image"),
        ({"read_only_mounts": {"/no/such/folder": "/opt/graval"}}, "engine_refused"),
    ],
)
def test_what_cannot_start_leaves_no_container(place, changes, code):
    """The engine's refusal becomes a code, and what it had created is removed."""
    containers, _, _ = place
    with pytest.raises(ChutesError) as caught:
        containers.start(spec_of(place, **changes))
    if code == "gpu_runtime_missing" and caught.value.code == "gpu_not_usable":
        pytest.skip("this engine has a GPU runtime")
    assert caught.value.code == code
    assert containers.all() == ()
