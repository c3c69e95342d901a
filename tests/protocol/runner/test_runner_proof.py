"""The proof and the generations of a launch, against a real runner process."""

import json
import os
import signal
import socket
import time

import pytest

from chutes_core.base.errors import Unavailable
from chutes_core.wire.frames import FrameKind, pack_leg
from chutes_core.wire.sealing import PROVEN, UNPROVEN, Preamble


def closed_unanswered(runner, preamble: bytes) -> bool:
    with socket.create_connection(("127.0.0.1", runner.port), timeout=10) as raw:
        raw.sendall(preamble)
        try:
            return raw.recv(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture(scope="module")
def fresh(start_runner):
    """A runner that no test of this module proves."""
    return start_runner(gpus=2)


def test_a_proof_of_two_gpus_rekeys_and_leaves_no_prover(start_runner):
    """Two provers answer exactly, REKEYED comes after both have exited, and generation 1 works."""
    runner = start_runner(gpus=2)
    runner.prove()
    assert runner.children() == []
    pong = runner.ask(FrameKind.PING, b"probe")
    assert (pong.kind, pong.payload) == (FrameKind.PONG, b"probe")


def test_warm_names_the_instance_key_and_every_gpu_in_order(fresh):
    """WARM carries the public key of the ready line and the declared UUIDs in order."""
    with fresh.blocking(generation=UNPROVEN) as connection:
        warm = fresh.hello(connection)
    assert bytes.fromhex(warm.instance_public_key) == fresh.public_key
    assert [b"GPU-0" in bytes.fromhex(warm.devices[0]), len(warm.devices)] == [True, 2]
    assert b"GPU-1" in bytes.fromhex(warm.devices[1])


def test_a_second_proof_beside_a_running_one_is_refused(fresh):
    """While one connection holds the proof, HELLO on another gets ERROR proof_busy."""
    with fresh.blocking(generation=UNPROVEN) as first:
        fresh.hello(first)
        with fresh.blocking(generation=UNPROVEN) as second:
            second.send(FrameKind.HELLO, b"{}")
            assert second.receive(60).json()["code"] == "proof_busy"
        first.send(FrameKind.PING, b"still here")
        assert first.receive(60).payload == b"still here"


def test_a_connection_that_ends_takes_its_provers_with_it(fresh):
    """After a broken proof no prover is left and another attempt may begin."""
    with fresh.blocking(generation=UNPROVEN) as connection:
        fresh.hello(connection)
        assert len(fresh.children()) == 2
    deadline = time.monotonic() + 90
    while fresh.children():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # another process ends: there is nothing to wait on but its absence
    with fresh.blocking(generation=UNPROVEN) as connection:
        fresh.hello(connection)


def test_rekey_before_all_answers_is_refused(fresh):
    """REKEY without answers gets ERROR proof_incomplete and the keys stay at generation 0."""
    with fresh.blocking(generation=UNPROVEN) as connection:
        fresh.hello(connection)
        connection.send(FrameKind.REKEY)
        assert connection.receive(60).json()["code"] == "proof_incomplete"
    assert closed_unanswered(fresh, preamble(fresh, generation=PROVEN))


def test_a_prover_that_fails_is_an_error_with_its_reason(fresh):
    """A malformed leg makes the prover give up, and ERROR says which code it gave."""
    with fresh.blocking(generation=UNPROVEN) as connection:
        fresh.hello(connection)
        connection.send(FrameKind.LEG, pack_leg(0, 1, b"no leg"))
        assert connection.receive(60).json()["code"].startswith("prover_")
        with pytest.raises(Unavailable):
            connection.receive(60)


def test_a_prover_that_cannot_start_is_an_error(start_runner):
    """A wrong interpreter ends in ERROR prover_not_started, and the runner goes on listening."""
    runner = start_runner(CHUTES_RUNNER_GRAVAL_PYTHON="/nowhere/python")
    for _ in range(2):
        with runner.blocking(generation=UNPROVEN) as connection:
            connection.send(FrameKind.HELLO, b"{}")
            assert connection.receive(60).json()["code"] == "prover_not_started"


def test_before_the_proof_orders_have_no_place(fresh):
    """START, RENEW, STOP and CALL under generation 0 get ERROR and end that connection."""
    for kind in (FrameKind.START, FrameKind.RENEW, FrameKind.STOP, FrameKind.CALL):
        with fresh.blocking(generation=UNPROVEN) as connection:
            connection.send(kind, b"{}")
            assert connection.receive(60).json()["code"] == "unexpected_frame"


def test_a_second_proof_after_the_first_is_refused(serving):
    """An instance that is proven takes no connection of generation 0, so no second HELLO."""
    with pytest.raises(Unavailable):
        serving.blocking(generation=UNPROVEN)


def test_a_connection_opened_before_the_proof_cannot_prove_again(start_runner):
    """HELLO on an old connection of generation 0 gets ERROR already_proven."""
    runner = start_runner()
    with runner.blocking(generation=UNPROVEN) as old:
        old.send(FrameKind.PING, b"open")
        old.receive(60)
        runner.prove()
        old.send(FrameKind.HELLO, b"{}")
        assert old.receive(60).json()["code"] == "already_proven"


def test_the_wrong_generation_gets_no_nonce(fresh, serving):
    """Generation 1 before the proof and generation 0 after it are closed unanswered."""
    assert closed_unanswered(fresh, preamble(fresh, generation=PROVEN))
    assert closed_unanswered(serving, preamble(serving, generation=UNPROVEN))


def test_another_launch_gets_no_nonce(fresh, serving):
    """A preamble of another launch is closed unanswered, and so is what is no preamble."""
    assert closed_unanswered(fresh, preamble(serving, generation=UNPROVEN))
    assert closed_unanswered(fresh, b"GET / HTTP/1.1\r\n".ljust(200, b" "))


def test_root_0_opens_nothing_after_the_proof(serving):
    """Frames sealed under root 0 do not authenticate under generation 1, and nothing answers."""
    with serving.blocking(generation=PROVEN, root=serving.root0()) as connection:
        connection.send(FrameKind.PING, b"old keys")
        with pytest.raises(Unavailable):
            connection.receive(60)


def test_a_tampered_frame_ends_only_its_connection(serving):
    """One flipped bit closes that connection; another one goes on."""
    with serving.blocking(generation=PROVEN) as good, serving.blocking(generation=PROVEN) as bad:
        good.send(FrameKind.PING, b"1")
        assert good.receive(60).payload == b"1"
        sealed = bytearray(bad._codec.seal(FrameKind.PING, b"2"))
        sealed[-1] ^= 1
        bad._socket.sendall(sealed)
        with pytest.raises(Unavailable):
            bad.receive(60)
        good.send(FrameKind.PING, b"3")
        assert good.receive(60).payload == b"3"


def test_the_ready_file_says_what_stdout_said(start_runner, tmp_path):
    """The ready file appears whole, with port and public key, and stdout then ends."""
    path = tmp_path / "ready"
    runner = start_runner(CHUTES_RUNNER_READY_FILE=str(path))
    ready = json.loads(path.read_text())
    assert ready == {"port": runner.port, "public_key": runner.public_key.hex()}
    assert runner.process.stdout.read() == ""


def test_sigterm_during_a_proof_leaves_no_prover(start_runner):
    """SIGTERM while provers are warm exits 0 and every prover is gone."""
    runner = start_runner()
    with runner.blocking(generation=UNPROVEN) as connection:
        runner.hello(connection)
        children = runner.children()
        assert children
        runner.process.send_signal(signal.SIGTERM)
        assert runner.wait() == 0
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def test_provers_end_with_a_killed_runner(start_runner):
    """SIGKILL of the runner closes the provers' stdin, upon which they exit."""
    runner = start_runner()
    with runner.blocking(generation=UNPROVEN) as connection:
        runner.hello(connection)
        children = runner.children()
        runner.process.kill()
        runner.wait()
        deadline = time.monotonic() + 90
        while any(is_running(pid) for pid in children):
            assert time.monotonic() < deadline
            time.sleep(0.02)  # not our child: nothing to wait on


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def preamble(runner, generation: int) -> bytes:
    built = Preamble.build(ticket=b"t" * 32, launch_id=runner.launch_id, generation=generation)
    return built.to_bytes()
