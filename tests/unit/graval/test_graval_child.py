"""The prover as a child process over pipes, as the runner starts it."""

import asyncio
import json
import subprocess
import sys

import pytest

from graval import messages
from graval.challenge import Answer
from graval.messages import ErrorReport, Kind, Message, Warm
from graval.params import PROFILES, deadlines, reference
from graval.verifier import build_challenge, check

COMMAND = [sys.executable, "-m", "graval.prover", "--gpu", "0"]
STAND_IN = [*COMMAND, "--backend", "numpy", "--declare", "h100_sxm"]


@pytest.fixture
def start():
    """Start a prover with the given arguments; none outlives the test."""
    started = []

    def run(command=STAND_IN):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(child)
        return child

    yield run
    for child in started:
        child.stdin.close()
        child.stdout.close()
        child.kill()
        child.wait()


def ask(child, kind, value):
    messages.write(child.stdin, Message(kind, value.to_bytes()))
    return messages.read(child.stdout)


def test_a_challenge_over_pipes_is_accepted(start, context, replace):
    """WARM, two legs, two answers, QUIT: accepted, and the child exits with 0."""
    child = start()
    first = messages.read(child.stdout)
    assert first.kind is Kind.WARM
    warm = Warm.from_bytes(first.body)
    assert warm.device.stand_in
    assert warm.rows_for("test") == PROFILES["test"].rows(0)
    assert warm.rows_for("admission") == warm.rows_for("unheard of") == 0
    for nonce in (b"1" * 32, b"2" * 32):
        asked = replace(context, device=warm.device, nonce=nonce)
        challenge = build_challenge(asked, PROFILES["test"], secret=b"s" * 32)
        answers = []
        for kind, leg in ((Kind.LEG1, challenge.leg1), (Kind.LEG2, challenge.leg2)):
            reply = ask(child, kind, leg)
            assert reply.kind is Kind.ANSWER
            answers.append(Answer.from_bytes(reply.body).digest)
        due = deadlines(PROFILES["test"], reference("h100_sxm", "test"), rtt_us=0)
        assert check(challenge, *answers, 1, 1, due).accepted
    messages.write(child.stdin, Message(Kind.QUIT))
    assert child.wait(timeout=30) == 0
    assert child.stdout.read() == b""


def test_the_end_of_input_ends_the_prover(start):
    """A prover whose parent is gone exits by itself, with 0."""
    child = start()
    messages.read(child.stdout)
    child.stdin.close()
    assert child.wait(timeout=30) == 0


def later(*arguments):
    return json.dumps({"arguments": arguments, "environ": {}}).encode() + b"\n"


def test_one_that_waits_proves_as_the_device_it_is_told(start, context, replace):
    """It has computed before it knows who it is, which changes no answer; then it ends with 0."""
    child = start([sys.executable, "-m", "graval.prover", "--later", "--backend", "numpy"])
    child.stdin.write(later(*STAND_IN[3:], "--uuid", "STANDIN-7"))
    child.stdin.flush()
    warm = Warm.from_bytes(messages.read(child.stdout).body)
    assert warm.device.uuid == "STANDIN-7"
    asked = replace(context, device=warm.device)
    challenge = build_challenge(asked, PROFILES["test"], secret=b"s" * 32)
    assert Answer.from_bytes(ask(child, Kind.LEG1, challenge.leg1).body).digest == (
        challenge.expected1
    )
    messages.write(child.stdin, Message(Kind.QUIT))
    assert child.wait(timeout=30) == 0
    assert child.stdout.read() == b""


def test_one_that_waits_ends_where_no_order_comes(start):
    """The end of its input ends it, with 0 and without a word."""
    child = start([sys.executable, "-m", "graval.prover", "--later", "--backend", "numpy"])
    child.stdin.close()
    assert child.wait(timeout=30) == 0
    assert child.stdout.read() == b""


def fails_with(child):
    reply = messages.read(child.stdout)
    assert reply.kind is Kind.ERROR
    assert child.wait(timeout=30) == 1
    return ErrorReport.from_bytes(reply.body)


def test_a_leg_2_without_its_leg_1_is_an_error(start, challenge):
    """The prover names the reason and exits with 1."""
    child = start()
    messages.read(child.stdout)
    messages.write(child.stdin, Message(Kind.LEG2, challenge.leg2.to_bytes()))
    assert fails_with(child).code == "other_challenge"


def test_a_challenge_for_another_device_is_an_error(start, context, replace):
    """A prover fills nothing for a device that it is not."""
    child = start()
    warm = Warm.from_bytes(messages.read(child.stdout).body)
    other = replace(context, device=replace(warm.device, uuid="another"))
    leg1 = build_challenge(other, PROFILES["test"], secret=b"s" * 32).leg1
    messages.write(child.stdin, Message(Kind.LEG1, leg1.to_bytes()))
    assert fails_with(child).code == "other_device"


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [(Kind.LEG1, b"junk", "truncated"), (Kind.WARM, b"", "unexpected")],
)
def test_junk_is_an_error(start, kind, body, code):
    """What is no leg is refused with a code."""
    child = start()
    messages.read(child.stdout)
    messages.write(child.stdin, Message(kind, body))
    assert fails_with(child).code == code


def test_more_than_a_stand_in_holds_is_an_error(start, context, replace):
    """A stand-in refuses the fill of a real profile."""
    child = start()
    warm = Warm.from_bytes(messages.read(child.stdout).body)
    asked = replace(context, device=warm.device, rows=PROFILES["light"].rows(0))
    leg1 = build_challenge(asked, PROFILES["test"], secret=b"s" * 32).leg1
    messages.write(child.stdin, Message(Kind.LEG1, leg1.to_bytes()))
    assert fails_with(child).code == "stand_in_memory"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--backend", "numpy"], "declare"),
        (["--backend", "torch", "--declare", "h100_sxm"], "declare"),
        (["--declare", "voodoo2"], "unknown_gpu"),
    ],
)
def test_a_stand_in_is_always_declared(start, arguments, code):
    """A CPU never poses as a GPU unasked, and a GPU never as another."""
    assert fails_with(start([*COMMAND, *arguments])).code == code


async def test_asyncio_can_drive_it(context, replace):
    """Header and body are read exactly; no thread is needed."""
    child = await asyncio.create_subprocess_exec(
        *STAND_IN, "--uuid", "U-1", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    kind, size = messages.decode_header(await child.stdout.readexactly(messages.HEADER_BYTES))
    warm = Warm.from_bytes(await child.stdout.readexactly(size))
    assert (kind, warm.device.uuid) == (Kind.WARM, "U-1")
    child.stdin.write(messages.encode(Message(Kind.QUIT)))
    assert await asyncio.wait_for(child.wait(), 30) == 0
