"""Bounds of the control plane in time and number, on a whole validator with a clock of its own."""

import json
import socket
import sys
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for whole_validator under --import-mode=importlib

from whole_validator import served

from chutes_core.base import ids
from chutes_core.validator.api.limits import MAX_CALLERS, SlowBuckets
from chutes_core.validator.api.routes import images
from chutes_core.validator.api.routes.discovery import MAX_VERDICTS
from chutes_core.validator.api.routes.warmup import MAX_WAIT_S
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import GpuVerdict, Proof


@pytest.fixture(scope="module")
def validator(tmp_path_factory):
    """The whole control plane; an upload has no more than a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "UPLOAD_TIMEOUT_S", 0.3)
        with served(tmp_path_factory.mktemp("bounds")) as made:
            yield made


def test_a_warm_up_ends_with_timeout(validator):
    """Whoever waits for a chute that stays cold is told so at the end of its time."""
    with httpx.stream(
        "GET", validator.url + "/chutes/warmup/app", timeout=60, trust_env=False
    ) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        events = [json.loads(next(lines).removeprefix("data: "))]
        validator.clock.advance(MAX_WAIT_S + 1)
        events += [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["status"] for event in events] == ["cold", "timeout"]
    assert str(MAX_WAIT_S) in events[-1]["log"]


def test_the_newest_verdicts_are_shown(validator):
    """So many of a day, and of more the oldest are left out."""
    verdict = GpuVerdict("GPU", "h100_sxm", True, Reason.NONE, 1, 2, 3, 4)
    now_s = validator.clock.now_s()
    for number in range(MAX_VERDICTS + 1):
        validator.store.proofs.insert(
            Proof(
                ids.new_id(), "l", "5A", "test", "node", True, now_s - 1000 + number, 7,
                (verdict,), "c", "s",
            )
        )  # fmt: skip
    shown = httpx.get(validator.url + "/verdicts", timeout=60, trust_env=False).json()
    assert shown["total"] == len(shown["items"]) == MAX_VERDICTS
    times = [item["at_s"] for item in shown["items"]]
    assert times == list(range(now_s - 999, now_s - 999 + MAX_VERDICTS))


def test_an_upload_that_does_not_come_is_408(validator):
    """The place that it takes is free again at the end of its time."""
    host, port = validator.url.removeprefix("http://").split(":")
    for _ in range(images.MAX_UPLOADS + 1):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                b"POST /images/ HTTP/1.1\r\nHost: x\r\nX-Chutes-Signature: 00\r\n"
                b"Connection: close\r\nContent-Length: 100\r\n\r\nhalf of it"
            )
            answer = b""
            while piece := connection.recv(65_536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        document = json.loads(body)
        assert (int(head.split()[1]), document["code"]) == (408, "body_timeout")
        assert document["hint"]


def test_only_so_many_callers_are_remembered(validator):
    """Addresses without end do not fill the memory; the newest are still counted."""
    buckets = SlowBuckets(validator.clock, burst=2, refill_s=60)
    for number in range(MAX_CALLERS + 2):
        buckets.take(f"address-{number}")
    assert len(buckets._left_us) <= MAX_CALLERS
    newest = f"address-{MAX_CALLERS + 1}"
    buckets.take(newest)
    with pytest.raises(Exception, match="too_many_registrations"):
        buckets.take(newest)
