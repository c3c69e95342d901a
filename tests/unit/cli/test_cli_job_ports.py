"""Ports of jobs at the command line: how they are shown, and what is refused at once."""

import socket

import pytest

JOB_ID = "00000000-0000-4000-8000-000000000001"
PORTS = [
    {"name": "web", "port": 8080, "proto": "http", "path": f"/jobs/{JOB_ID}/ports/web/"},
    {"name": "db", "port": 5432, "proto": "tcp", "path": None},
]
RUN = {
    "job_id": JOB_ID,
    "state": "running",
    "ended": False,
    "reason": "",
    "detail": "",
    "instance_id": None,
    "files": [],
    "ports": PORTS,
}


@pytest.fixture
def job(api, monkeypatch):
    """Return a function that sets how the run stands."""
    monkeypatch.setenv("CHUTES_API_URL", api.url)
    monkeypatch.setenv("CHUTES_API_KEY", "cpk_a.b.c")

    def stands(**changes):
        api.replies.clear()
        api.on(f"GET /jobs/{JOB_ID}", {**RUN, **changes})

    stands()
    return stands


def test_a_run_shows_how_its_ports_are_reached(job, run):
    """The command for each, and the address of an http port; none once it has ended."""
    shown = run("jobs", "get", JOB_ID).out
    assert f"web (http 8080): chutes jobs forward {JOB_ID} web; /jobs/{JOB_ID}/ports/web/" in shown
    assert f"db (tcp 5432): chutes jobs forward {JOB_ID} db\n" in shown
    job(state="complete", ended=True, ran_seconds=1, charge_rao=1)
    assert "forward" not in run("jobs", "get", JOB_ID).out


@pytest.mark.parametrize(
    ("changes", "name", "code"),
    [
        ({}, "ssh", "no_such_port"),
        ({"ports": []}, "web", "no_such_port"),
        ({"state": "pending"}, "web", "job_not_running"),
        ({"state": "complete"}, "db", "job_not_running"),
    ],
)
def test_forwarding_what_is_not_there_ends_at_once(job, run, changes, name, code):
    """With exit code 1, a code and a hint; nothing listens meanwhile."""
    job(**changes)
    done = run("jobs", "forward", JOB_ID, name, "--json")
    assert (done.code, done.json["error"]["code"]) == (1, code)
    assert done.json["error"]["hint"]


def test_a_local_port_that_is_taken_is_said(job, run):
    """By code, with the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        local = str(taken.getsockname()[1])
        done = run("jobs", "forward", JOB_ID, "web", "--local", local, "--json")
    assert done.json["error"]["code"] == "port_taken"
    assert "--local" in done.json["error"]["hint"]


def test_a_job_that_runs_here_listens_here(run, tmp_path, monkeypatch):
    """`run --dev` says where, and the job's own socket is all there is to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    (tmp_path / "listener.py").write_text(f"""
import socket

from chutes.chute import Chute, Port

chute = Chute(username="bob", name="demo", image="bob/app:1")


@chute.job(ports=[Port(name="echo", port={number})])
def serve(self):
    with socket.create_server(("127.0.0.1", {number})) as server:
        with socket.create_connection(("127.0.0.1", {number})) as one:
            one.sendall(b"x")
            with server.accept()[0] as other:
                return other.recv(1).decode()
""")
    monkeypatch.chdir(tmp_path)
    done = run("run", "listener:chute", "--dev", "--dev-job-method", "serve", "--json")
    assert (done.code, done.json["result"]) == (0, "x"), done
    assert f"its port echo (tcp) is port {number} of this machine" in done.err
