"""How a build's output is read, and what an unreachable engine is called."""

import pytest

from chutes_core.base.errors import Invalid, Unavailable
from chutes_core.engine.build import Build, BuildLimits, BuildRequest
from chutes_core.engine.connect import connect, host_of


def build_of(lines, **limits):
    bounds = {"time_s": 1, "log_bytes": 1000, "log_lines": 10, "memory_bytes": 1, "cpus": 1}
    asked = BuildRequest(
        context=None,
        dockerfile="x",
        network="n",
        limits=BuildLimits(**{**bounds, "min_free_bytes": 0, **limits}),
    )
    return Build(None, asked, lambda stream, line: lines.append((stream, line)))


def test_output_comes_line_by_line_without_colours():
    """Red text is standard error; a progress line shows its last state."""
    lines = []
    build = build_of(lines)
    build._take({"stream": "on"})
    build._take({"stream": "e\ntwo 10%\rtwo 100%\n"})
    build._take({"stream": "\x1b[91mbad"})
    build._take({"stream": "\x1b[0m\x1b[91m line\n\x1b[0m"})
    build._take({"stream": "good\n"})
    build._take({"status": "Pulling", "progressDetail": {"current": 1}})
    assert lines == [
        ("stdout", "one"),
        ("stdout", "two 100%"),
        ("stderr", "bad line"),
        ("stdout", "good"),
    ]
    assert build.last_lines == "one\ntwo 100%\nbad line\ngood"


def test_output_over_the_limit_ends_the_build():
    """Lines are counted, and bytes too."""
    with pytest.raises(Exception, match="build_log_too_long"):
        build_of([], log_lines=2)._take({"stream": "a\nb\nc\n"})
    with pytest.raises(Exception, match="build_log_too_long"):
        build_of([], log_bytes=10)._take({"stream": "a" * 11})


def test_a_command_that_found_no_room_is_told_what_is_full():
    """The engine names the command's exit code alone; what was printed says why."""
    build = build_of([])
    build._take({"stream": "head: error writing: No space left on device\n"})
    with pytest.raises(Invalid) as failed:
        build._take({"error": "The command 'head' returned a non-zero code: 1"})
    assert failed.value.code == "build_failed"
    assert "disk of the Docker engine is full" in failed.value.hint
    with pytest.raises(Invalid) as other:
        build_of([])._take({"error": "The command 'false' returned a non-zero code: 1"})
    assert "disk" not in other.value.hint


def test_what_a_command_prints_is_never_taken_for_the_built_image():
    """A build's own commands can print what the engine prints at the end."""
    build = build_of([])
    build._take({"stream": "Successfully built 0123456789ab\n"})
    assert build._built is None
    build._take({"aux": {"ID": "sha256:" + "a" * 64}})
    assert build._built == "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("unix:///nowhere/docker.sock", "engine_socket_missing"),
        ("unix:///" + "x" * 200, "bad_docker_host"),
        ("unix:///etc/passwd", "bad_docker_host"),
        ("nonsense", "bad_docker_host"),
        ("tcp://127.0.0.1:9", "engine_unreachable"),
    ],
)
def test_an_engine_that_cannot_be_used_is_named_with_the_fix(host, code):
    """Each reason has a code of its own and a hint."""
    with pytest.raises(Unavailable) as failed:
        connect(host)
    assert failed.value.code == code
    assert failed.value.hint


def test_the_environment_says_where_the_engine_listens():
    """DOCKER_HOST, or the usual socket."""
    assert host_of({"DOCKER_HOST": "tcp://h:1"}) == "tcp://h:1"
    assert host_of({}) == "unix:///var/run/docker.sock"
