"""The entrance: help, exit codes, and how errors are shown."""

import subprocess
import sys

import pytest

from chutes_core.cli.main import COMMANDS


def test_help_lists_every_command(run):
    """--help names each command with its line, and the exit codes."""
    done = run("--help")
    assert done.code == 0
    for name, (_, line) in COMMANDS.items():
        assert name in done.out
        assert line in done.out
    assert "3 unreachable" in done.out.replace("\n  ", " ")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(run, name):
    """Each command can be imported and explains itself."""
    done = run(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: chutes {name}")


@pytest.mark.parametrize(
    "arguments", [("nothing",), ("build",), ("keys", "create"), ("inspect", "a:b", "--what"), ()]
)
def test_bad_use_exits_2(run, arguments):
    """An unknown command, a missing argument or option, or no command at all."""
    assert run(*arguments).code == 2


def test_errors_have_message_code_and_hint(run):
    """On stderr for people, with what to do next."""
    done = run("balance")
    assert (done.code, done.out) == (2, "")
    assert "error: no validator is configured [no_api_url]" in done.err
    assert "hint:  set CHUTES_API_URL" in done.err


def test_errors_as_json(run):
    """With --json the error is a document on stdout."""
    done = run("balance", "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "no_api_url"


def test_an_unreachable_server_exits_3(run, monkeypatch, registered):
    """Nobody answers at the address."""
    monkeypatch.setenv("CHUTES_API_URL", "http://127.0.0.1:1")
    done = run("balance", "--json")
    assert (done.code, done.json["error"]["code"]) == (3, "unreachable")


def test_a_refusal_exits_1(run, api, registered):
    """The server's code and hint are shown as they came."""
    body = {"detail": "too poor", "code": "insufficient_balance", "hint": "pay"}
    api.on("GET /users/me", body, status=402)
    done = run("balance", "--json")
    assert done.code == 1
    assert done.json["error"] == {
        "message": "too poor",
        "code": "insufficient_balance",
        "hint": "pay",
        "http_status": 402,
    }


def test_an_answer_that_is_no_json_is_explained(run, api, registered):
    """A web page at the address is not taken for an answer."""
    api.on("GET /users/me", b"<html>", headers={"Content-Type": "text/html"})
    done = run("balance")
    assert done.code != 0
    assert "not_json" in done.err


def test_the_command_starts_without_libraries():
    """`chutes --help` imports neither the web framework nor the client."""
    program = (
        "import sys; from chutes_core.cli.main import main; main(['--help']);"
        "print([m for m in ('fastapi', 'pydantic', 'httpx', 'bittensor') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
