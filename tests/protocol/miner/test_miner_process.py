"""The process runtime with real processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from chutes_core.miner.runtime.base import ImageBundle, InstanceSpec, RuntimeFailed
from chutes_core.miner.runtime.process import ProcessRuntime

LAUNCH = "11111111-2222-3333-4444-555555555555"
ENV = {
    "CHUTES_RUNNER_LAUNCH_ID": LAUNCH,
    "CHUTES_RUNNER_PORT": "0",
    "CHUTES_EXECUTION_CONTEXT": "REMOTE",
}
OPERATOR = {
    "CHUTES_MINER_WALLET_PATH": "/secret",
    "AWS_SECRET": "x",
    "HOME": "/nowhere",
    "PIP_NO_INDEX": "1",
    "LANG": "C.UTF-8",
    "PATH": os.environ["PATH"],
}


def bundle(tmp_path, data, sha="a" * 64, image_id="i1"):
    path = tmp_path / f"{sha}.zip"
    path.write_bytes(data)
    return ImageBundle(image_id, "bob/app:1", sha, path)


@pytest.fixture
async def running(tmp_path, make_bundle):
    """Make a runtime with one prepared image and start a command in it."""
    runtimes = []

    async def start(*command, wait=True):
        runtime = ProcessRuntime(tmp_path / "data", environ=OPERATOR, command=command)
        runtimes.append(runtime)
        image = await runtime.prepare(bundle(tmp_path, make_bundle("FROM x\nRUN apt-get y\n")))
        await runtime.start(InstanceSpec(LAUNCH, image, ENV))
        return runtime, (await runtime.wait_ready(LAUNCH, 90) if wait else None)

    yield start
    for runtime in runtimes:
        await runtime.stop(LAUNCH, 0.1)
        runtime.forget(LAUNCH)


@pytest.fixture
def stranger():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.communicate(b"\n")


async def until_ended(runtime):
    await until(lambda: runtime.ended(LAUNCH) is not None)
    return runtime.ended(LAUNCH)


async def until(condition, timeout_s=90):
    """Other processes give no event to wait for: look until it is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_an_instance_starts_listens_and_stops(running, runner_command):
    """A prepared image runs the command; stop ends it and forget leaves nothing."""
    runtime, ready = await running(*runner_command)
    assert ready.public_key == "ab" * 32
    assert runtime.ended(LAUNCH) is None
    _, writer = await asyncio.open_connection("127.0.0.1", ready.port)
    writer.close()
    await runtime.stop(LAUNCH, 60)
    assert runtime.ended(LAUNCH).exit_code == -signal.SIGTERM
    assert runtime.instances() == (LAUNCH,)
    runtime.forget(LAUNCH)
    assert runtime.instances() == ()


async def test_the_environment_is_clean(running, runner_command):
    """An instance sees its runner's variables and nothing of the operator's."""
    runtime, _ = await running(*runner_command)
    await until(lambda: "environment:" in runtime.log_tail(LAUNCH, 4000))
    line = next(x for x in runtime.log_tail(LAUNCH, 4000).splitlines() if "environment:" in x)
    names = set(json.loads(line.partition("environment: ")[2].replace("'", '"')))
    assert names - {"LC_CTYPE"} == {
        "PATH", "HOME", "TMPDIR", "LANG", "PYTHONUNBUFFERED", "CHUTES_RUNNER_READY_FILE", *ENV,
    }  # fmt: skip


async def test_an_instance_imports_our_packages_from_its_own_venv(running):
    """The image's interpreter is its own, and finds chutes_core without installing it."""
    code = "import sys, chutes_core, pydantic; print(sys.prefix, chutes_core.__file__)"
    runtime, _ = await running("-c", code, wait=False)
    assert (await until_ended(runtime)).exit_code == 0
    prefix, where = runtime.log_tail(LAUNCH, 4000).split()
    assert prefix != sys.prefix
    assert "images" in prefix
    assert where.endswith("chutes_core/__init__.py")


async def test_an_early_end_is_told_with_its_code(running):
    """An instance that ends before it listens is a failure with its exit code."""
    runtime, _ = await running("-c", "import sys; print('no luck'); sys.exit(9)", wait=False)
    with pytest.raises(RuntimeFailed) as caught:
        await runtime.wait_ready(LAUNCH, 90)
    assert caught.value.code == "instance_ended"
    assert runtime.ended(LAUNCH).exit_code == 9
    assert "no luck" in runtime.log_tail(LAUNCH, 100)


async def test_waiting_has_a_deadline(running):
    """An instance that never listens is a failure of its own name."""
    runtime, _ = await running("-c", "import time; time.sleep(60)", wait=False)
    with pytest.raises(RuntimeFailed) as caught:
        await runtime.wait_ready(LAUNCH, 0.2)
    assert caught.value.code == "listen_timeout"


async def test_what_ignores_sigterm_is_killed_with_its_children(running):
    """After the grace time the whole group goes, grandchildren too."""
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    runtime, _ = await running("-c", code, wait=False)
    await until(lambda: "child" in runtime.log_tail(LAUNCH, 100))
    child = int(runtime.log_tail(LAUNCH, 100).split()[-1])
    await runtime.stop(LAUNCH, 0.2)
    assert runtime.ended(LAUNCH) is not None
    await until(lambda: not is_alive(child))


async def test_leftover_children_end_with_the_instance(running):
    """A child that outlives its instance is ended by the shim."""
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
    )
    runtime, _ = await running("-c", code, wait=False)
    assert (await until_ended(runtime)).exit_code == 0
    child = int(runtime.log_tail(LAUNCH, 100))
    await until(lambda: not is_alive(child))


async def test_another_runtime_finds_the_instance_again(running, runner_command, tmp_path):
    """What a killed miner left running is found by its directory, can be read and stopped."""
    runtime, ready = await running(*runner_command)
    again = ProcessRuntime(tmp_path / "data", environ=OPERATOR)
    assert again.instances() == (LAUNCH,)
    assert again.ended(LAUNCH) is None
    assert await again.wait_ready(LAUNCH, 60) == ready
    await until(lambda: "tiny runner" in again.log_tail(LAUNCH, 4000))
    await asyncio.gather(again.stop(LAUNCH, 60), until_ended(runtime))
    assert again.ended(LAUNCH).exit_code == -signal.SIGTERM


async def test_a_reused_pid_is_not_ours(running, runner_command, tmp_path, stranger):
    """A process with the recorded pid but another start time counts as gone and is left alone."""
    runtime, _ = await running(*runner_command)
    home = tmp_path / "data" / "instances" / LAUNCH
    record = (home / "pid.json").read_text()
    (home / "pid.json").write_text(json.dumps({"pid": stranger.pid, "started": 1}))
    again = ProcessRuntime(tmp_path / "data", environ=OPERATOR)
    assert again.ended(LAUNCH) is not None
    await again.stop(LAUNCH, 0.1)
    assert stranger.poll() is None
    (home / "pid.json").write_text(record)
    assert runtime.ended(LAUNCH) is None


async def test_the_log_is_bounded(running, tmp_path):
    """Twelve megabytes of output leave at most two files of four, and the last line is there."""
    code = "import sys\nfor n in range(12 * 1024): print('x' * 1023)\nprint('the end')"
    runtime, _ = await running("-c", code, wait=False)
    await until_ended(runtime)
    home = tmp_path / "data" / "instances" / LAUNCH
    sizes = [os.stat(home / name).st_size for name in ("log.txt", "log.1.txt")]
    assert sum(sizes) < 9 << 20
    assert runtime.log_tail(LAUNCH, 20).strip().endswith("the end")


async def test_a_failing_install_names_its_log(tmp_path, make_bundle):
    """pip's own words come back with the reason, and the image is not warm."""
    runtime = ProcessRuntime(tmp_path / "data", environ=OPERATOR)
    image = bundle(tmp_path, make_bundle("RUN pip install no-such-thing-of-ours\n"))
    with pytest.raises(RuntimeFailed) as caught:
        await runtime.prepare(image)
    assert caught.value.code == "image_failed"
    assert "no-such-thing-of-ours" in caught.value.message
    assert runtime.warm_images() == frozenset()


# A package that builds itself: which setuptools or wheel this machine has must not matter.
OWN_BACKEND = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name, info = "tiny_of_ours-1-py3-none-any.whl", "tiny_of_ours-1.dist-info"
    metadata = ["Metadata-Version: 2.1", "Name: tiny-of-ours", "Version: 1"]
    tags = ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as wheel:
        wheel.write("tiny_of_ours.py")
        for file, lines in (("METADATA", metadata), ("WHEEL", tags), ("RECORD", [])):
            wheel.writestr(f"{info}/{file}", "\\n".join(lines))
    return name
"""


async def test_an_install_lands_in_the_venv(tmp_path, make_bundle):
    """A package of the context is installed into the image and not into this interpreter."""
    data = make_bundle(
        "RUN pip install --no-build-isolation --no-deps ./pkg\n",
        **{
            "pkg/pyproject.toml": OWN_BACKEND,
            "pkg/backend.py": BACKEND,
            "pkg/tiny_of_ours.py": "WORD = 'here'\n",
        },
    )
    runtime = ProcessRuntime(
        tmp_path / "data",
        environ=OPERATOR,
        command=("-c", "import tiny_of_ours as t; print(t.WORD)"),
    )
    image = await runtime.prepare(bundle(tmp_path, data))
    assert runtime.warm_images() == {"i1"}
    await runtime.start(InstanceSpec(LAUNCH, image, ENV))
    assert (await until_ended(runtime)).exit_code == 0
    assert runtime.log_tail(LAUNCH, 100).strip() == "here"
    runtime.forget(LAUNCH)


async def test_an_image_is_made_once_and_known_by_every_name(tmp_path, make_bundle):
    """Two images with the same bundle share one venv."""
    runtime = ProcessRuntime(tmp_path / "data", environ=OPERATOR)
    data = make_bundle("FROM x\n")
    first = bundle(tmp_path, data)
    await asyncio.gather(runtime.prepare(first), runtime.prepare(first))
    marker = tmp_path / "data" / "images" / first.sha256 / "venv" / "pyvenv.cfg"
    made = marker.stat().st_mtime_ns
    await runtime.prepare(bundle(tmp_path, data, image_id="i2"))
    assert marker.stat().st_mtime_ns == made
    assert runtime.warm_images() == {"i1", "i2"}


async def test_a_torn_image_is_made_anew(tmp_path, make_bundle):
    """What a killed miner left half made is not used."""
    torn = tmp_path / "data" / "images" / ("a" * 64) / "venv"
    torn.mkdir(parents=True)
    runtime = ProcessRuntime(tmp_path / "data", environ=OPERATOR)
    assert runtime.warm_images() == frozenset()
    await runtime.prepare(bundle(tmp_path, make_bundle("FROM x\n")))
    assert (torn / "bin" / "python").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "context/../../../evil"])
async def test_a_bundle_stays_in_its_folder(tmp_path, name):
    """A path that leads out of the bundle is refused."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Dockerfile", "FROM x")
        archive.writestr(name, "evil")
    runtime = ProcessRuntime(tmp_path / "data", environ=OPERATOR)
    with pytest.raises(RuntimeFailed, match="outside"):
        await runtime.prepare(ImageBundle("i", "n", "b" * 64, path))


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
