"""Builds on a real engine: what comes out, what is refused, and what a build cannot do."""

import json
import socket
import threading
import time
import uuid

import pytest

from chutes_core.engine import archive
from chutes_core.engine.check import image_facts
from chutes_core.validator.catalog.builder import BuildFailed, BuildStopped


def run_inside(engine, image, command):
    """Run a command as an instance would and return its exit code and output."""
    api = engine.api
    host = api.create_host_config(network_mode="none", read_only=True, cap_drop=["ALL"])
    made = api.create_container(
        image, entrypoint=command, user="10001:10001", working_dir="/", host_config=host
    )
    try:
        api.start(made["Id"])
        code = api.wait(made["Id"], timeout=180)["StatusCode"]
        return code, api.logs(made["Id"]).decode()
    finally:
        api.remove_container(made["Id"], force=True)


def test_a_good_build_leaves_an_image_with_the_runner_and_an_archive(bench, base):
    """The context is copied, the runner goes on top, and the archive has the digest it says."""
    said = f"from the context {uuid.uuid4()}"  # nothing of it is in the engine's cache yet
    image = bench.image(
        "good",
        f'FROM {base}\nCOPY hello.txt /app/\nRUN cat /app/hello.txt\nENTRYPOINT ["/bin/false"]',
        {"hello.txt": said},
    )
    made = bench.builder().build(image, bench.log)
    assert said in bench.text
    assert "== the image's entry point is replaced" in bench.text
    assert "the runner can be imported" in bench.text
    assert not [line for line in bench.lines if line.startswith("note: stand-in GPUs will not")]
    facts = image_facts(bench.engine, made.image_digest)
    assert facts.entrypoint[1:] == ("-m", "chutes_core.runner")
    assert dict(facts.labels)["chutes.python"] == facts.entrypoint[0]
    assert bench.blobs.path(made.archive_sha256).stat().st_size == made.archive_bytes
    python = facts.entrypoint[0]
    code, out = run_inside(bench.engine, made.image_digest, [python, "-m", "chutes_core.runner"])
    assert code != 0
    assert "CHUTES_RUNNER" in out


def test_an_equal_image_is_built_from_the_cache(bench, base):
    """The same Dockerfile and runner give the same image, without installing again."""
    text = f"FROM {base}\nENV CACHED=1"
    one = bench.builder().build(bench.image("one", text), bench.log)
    bench.lines.clear()
    two = bench.builder().build(bench.image("two", text), bench.log)
    assert one.image_digest == two.image_digest
    assert "Using cache" in bench.text


def test_an_image_that_has_a_package_named_chutes_gets_our_sdk(bench, base):
    """`import chutes` means our SDK for the runner, whatever the image has under that name."""
    setup = "from setuptools import setup; setup(name='chutes', version='9', packages=['chutes'])"
    image = bench.image(
        "public-package",
        f"FROM {base}\nCOPY pkg /pkg\nRUN pip install --no-build-isolation --no-deps /pkg"
        ' && python -c "import chutes; assert chutes.PUBLIC"',
        {"pkg/setup.py": setup, "pkg/chutes/__init__.py": "PUBLIC = True\n"},
    )
    bench.builder().build(image, bench.log)
    assert "the runner can be imported" in bench.text


def test_a_failing_command_ends_the_build_with_its_last_lines(bench, base):
    """The status says which command failed and what it printed; no container is left."""
    before = bench.containers()
    image = bench.image("failing", f"FROM {base}\nRUN echo so far so good; echo broken >&2; exit 7")
    with pytest.raises(BuildFailed) as failed:
        bench.builder().build(image, bench.log)
    assert "returned a non-zero code: 7" in str(failed.value)
    assert "so far so good" in str(failed.value)
    assert "broken" in str(failed.value)
    assert bench.containers() == before


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("no-python", "RUN rm -f /usr/bin/python*", "has no python on its PATH"),
        (
            "old-python",
            "COPY old /old\nRUN install -m 755 /old /usr/local/bin/python",
            "Python 3.9.2; 3.10 or later is needed",
        ),
        ("no-pip", "RUN rm -rf /usr/lib/python3/dist-packages/pip", "has no pip"),
        ("volume", "VOLUME /data", "declares volumes (/data)"),
        ("old-cuda", "ENV CUDA_VERSION=11.8.0", "has CUDA 11.8.0; GPU hosts run CUDA 12.x"),
        ("no-such-file", "COPY nothing-here /x", "nothing-here"),
        ("bad-line", "RUNN x", "unknown instruction"),
    ],
)
def test_an_image_that_cannot_run_a_chute_is_refused(bench, base, name, lines, words):
    """Each reason is said in words that tell the developer what to change."""
    answer = {"python": "/usr/local/bin/python", "version": [3, 9, 2], "pip": True}
    old = f"#!/bin/sh\necho '{json.dumps(answer)}'\n"
    image = bench.image(name, f"FROM {base}\n{lines}", {"old": old})
    with pytest.raises(BuildFailed) as failed:
        bench.builder().build(image, bench.log)
    assert words in str(failed.value)


def test_a_base_with_triggers_is_refused(bench, base, tmp_path):
    """ONBUILD of a base would run instructions that nobody has checked."""
    trigger = tmp_path / "Dockerfile"
    trigger.write_text(f"FROM {base}\nONBUILD RUN true\n")
    name = "chutes-test-trigger:latest"
    bench.engine.images.build(path=str(tmp_path), tag=name, rm=True)
    try:
        with pytest.raises(BuildFailed, match="ONBUILD"):
            bench.builder().build(bench.image("on-trigger", f"FROM {name}"), bench.log)
    finally:
        archive.remove(bench.engine, name)


def test_endless_output_is_cut_off(bench, base):
    """A build that prints for ever ends at the limit of lines, and leaves no container."""
    before = bench.containers()
    image = bench.image("chatty", f"FROM {base}\nRUN yes")
    with pytest.raises(BuildFailed, match="wrote more than 2000 lines"):
        bench.builder(log_lines=2000).build(image, bench.log)
    assert len(bench.lines) < 2100
    _wait_for(lambda: bench.containers() == before)


def test_an_endless_build_is_cut_off(bench, base):
    """A build that never ends is stopped at its time limit, and its container is gone."""
    before = bench.containers()
    image = bench.image("endless", f"FROM {base}\nRUN sleep 600")
    with pytest.raises(BuildFailed, match="took longer than 2 s"):
        bench.builder(time_s=2.0).build(image, bench.log)
    _wait_for(lambda: bench.containers() == before)


def test_closing_the_builder_stops_a_build(bench, base):
    """A validator that ends does not wait for a build; the image is not to blame."""
    builder = bench.builder()
    image = bench.image("closing", f"FROM {base}\nRUN echo begun; sleep 600")
    ended = []

    def build():
        with pytest.raises(BuildStopped):
            builder.build(image, bench.log)
        ended.append(True)

    thread = threading.Thread(target=build)
    thread.start()
    _wait_for(lambda: "begun" in bench.lines)
    builder.close()
    thread.join(120)
    assert ended == [True]
    with pytest.raises(BuildStopped):
        builder.build(image, bench.log)


def test_a_fork_bomb_ends_at_the_limit_of_processes(bench, base):
    """The engine has no such limit for builds; the group around the build has."""
    script = "import os, signal\nfor i in range(500):\n    if os.fork() == 0: signal.pause()\n"
    image = bench.image("bomb", f"FROM {base}\nCOPY b.py /\nRUN python /b.py", {"b.py": script})
    with pytest.raises(BuildFailed) as failed:
        bench.builder(processes=64).build(image, bench.log)
    assert "Resource temporarily unavailable" in str(failed.value)


def test_memory_is_bounded(bench, base):
    """A build that takes more than its memory is killed alone."""
    image = bench.image("hungry", f"FROM {base}\nRUN python -c 'x = bytearray(400 << 20)'")
    with pytest.raises(BuildFailed, match="non-zero code: 137"):
        bench.builder(memory_bytes=128 << 20).build(image, bench.log)


def test_a_too_large_image_is_refused(bench, base):
    """The size of the result counts, and the image does not stay."""
    image = bench.image("large", f"FROM {base}\nRUN echo x >/x")
    with pytest.raises(BuildFailed, match="at most 1000000 are allowed"):
        bench.builder(image_bytes=1_000_000).build(image, bench.log)


def test_a_build_reaches_neither_host_nor_private_addresses(bench, base):
    """Its network is cut off from the host's ports and from what lies around the host."""
    probe = (
        "import socket, struct\n"
        "gateway = next(l.split()[2] for l in open('/proc/net/route') if l.split()[1] == '0' * 8)\n"
        "host = socket.inet_ntoa(struct.pack('<I', int(gateway, 16)))\n"
        "print('gateway', host)\n"
        "for address in ((host, PORT), ('10.1.2.3', 80), ('169.254.169.254', 80)):\n"
        "    try:\n"
        "        socket.create_connection(address, timeout=2)\n"
        "    except OSError as error:\n"
        "        print('shut', address[0])\n"
        "    else:\n"
        "        print('OPEN', address[0])\n"
    )
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        image = bench.image(
            "probe",
            f"FROM {base}\nCOPY p.py /\nRUN python /p.py",
            {"p.py": probe.replace("PORT", str(port))},
        )
        bench.builder().build(image, bench.log)
    assert "OPEN" not in bench.text
    assert bench.text.count("\nshut ") == 3


def _wait_for(true, timeout_s=120.0):
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
