"""The hardening of a container, as it is asked of the engine."""

import dataclasses

import pytest

from chutes_core.engine.gpu import device_requests
from chutes_core.engine.networks import Network
from chutes_core.engine.run import CACHE, HOME, TMP, USER_ID, ContainerSpec, Limits, host_options

INSIDE = Network("chutes-x-inside", "chi-x", "172.30.0.0/16", "172.30.0.1")
OUTSIDE = Network("chutes-x-outside", "cho-x", "172.31.0.0/16", "172.31.0.1")
MIB = 1 << 20


def spec(**changes):
    values = {
        "launch_id": "11111111-2222-3333-4444-555555555555",
        "owner": "5Miner",
        "image": "sha256:" + "a" * 64,
        "entrypoint": ("/usr/bin/python3", "-m", "chutes_core.runner"),
        "environment": {"A": "b"},
        "inside": INSIDE,
        "outside": OUTSIDE,
        "egress": "startup",
        "limits": Limits(memory_bytes=512 * MIB, nano_cpus=10**9, pids=100),
    }
    return ContainerSpec(**{**values, **changes})


def test_nothing_is_granted_that_an_instance_does_not_need():
    """No capability, no new privileges, a read-only root, no restart, no shared namespaces."""
    options = host_options(spec())
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert options["read_only"] is True
    assert options["init"] is True
    assert options["ipc_mode"] == "private"
    assert options["restart_policy"] == {"Name": "no"}
    assert options["network_mode"] == INSIDE.name
    assert {"privileged", "cap_add", "devices", "pid_mode", "volumes_from"}.isdisjoint(options)
    assert "seccomp" not in str(options["security_opt"])  # the engine's default profile stays


def test_memory_is_memory_without_swap_and_everything_is_bounded():
    """Memory equals memory with swap; CPU, processes, files, shared memory and logs have bounds."""
    options = host_options(spec())
    assert options["mem_limit"] == options["memswap_limit"] == 512 * MIB
    assert options["nano_cpus"] == 10**9
    assert options["pids_limit"] == 100
    assert options["shm_size"] > 0
    assert {limit["Name"]: limit["Hard"] for limit in options["ulimits"]}["core"] == 0
    assert options["log_config"].config == {"max-size": "4194304", "max-file": "2"}


def test_only_two_places_can_be_written_and_both_have_a_size():
    """The temporary folder and the home are sized tmpfs of the instance's own user."""
    tmpfs = host_options(spec())["tmpfs"]
    assert set(tmpfs) == {TMP, HOME}
    for text in tmpfs.values():
        assert f"uid={USER_ID}" in text
        assert "size=" in text
        assert {"nosuid", "nodev"} <= set(text.split(","))


def test_the_hosts_resolvers_are_never_taken_over():
    """Without resolvers of its own an instance gets one that leads nowhere."""
    assert host_options(spec())["dns"] == ["192.0.2.1"]
    assert host_options(spec(dns=("1.1.1.1",)))["dns"] == ["1.1.1.1"]


def test_a_provers_directory_is_mounted_read_only():
    """What is mounted from the host cannot be written."""
    (mount,) = host_options(spec(read_only_mounts={"/srv/graval": "/opt/graval"}))["mounts"]
    assert mount["ReadOnly"] is True
    assert (mount["Source"], mount["Target"]) == ("/srv/graval", "/opt/graval")


def test_a_chutes_own_folder_can_be_written():
    """The one mount that is not read-only, and it says so."""
    options = host_options(spec(writable_mounts={"/srv/models": CACHE}))
    (mount,) = options["mounts"]
    assert mount["ReadOnly"] is False
    assert (mount["Source"], mount["Target"], mount["Type"]) == ("/srv/models", "/cache", "bind")


def test_gpus_are_asked_for_by_uuid():
    """Exactly the granted devices, as the engine's API names them (API 1.41, by its reference)."""
    (request,) = device_requests(["GPU-8a3c", "GPU-91d0"])
    assert dict(request) == {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": ["GPU-8a3c", "GPU-91d0"],
        "Capabilities": [["gpu", "compute", "utility"]],
        "Options": {},
    }


def test_a_stand_in_asks_for_no_device():
    """Without device GPUs there is no request at all, so no device of the host appears."""
    assert host_options(spec())["device_requests"] == []


def test_a_spec_cannot_be_changed():
    """What was decided is what is started."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec().image = "another"
