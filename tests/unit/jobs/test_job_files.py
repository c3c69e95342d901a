"""Fetching a file from an instance that means us no good."""

import threading
from types import SimpleNamespace

import pytest

from chutes_core.base.errors import ProtocolError, TimedOut, TooLarge, Unavailable
from chutes_core.validator.jobs import files
from chutes_core.validator.store.blobs import Blobs
from chutes_core.wire.frames import Frame, FrameKind

ADDRESS = SimpleNamespace(host="h", port=1, root=b"r", ticket=b"t", launch_id="l")


class Instance:
    """Answers a file query with these frames, and then with silence."""

    def __init__(self, *frames):
        self.frames = list(frames)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        pass

    def send(self, kind, payload):
        assert kind is FrameKind.JOB_FILE

    def receive(self, timeout_s):
        if not self.frames:
            raise TimedOut("frame_timeout", "silence")
        return self.frames.pop(0)


def body(size):
    return Frame(FrameKind.BODY, b"x" * size)


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Return a function that fetches from an instance; what was kept is in ``blobs``."""
    blobs = Blobs(tmp_path / "files")

    def run(instance, limit_bytes=100, stop=None):
        monkeypatch.setattr(files, "open_blocking", lambda *args, **options: instance)
        stop = stop or threading.Event()
        return files.fetch(
            ADDRESS,
            "00000000-0000-4000-8000-000000000001",
            "a",
            blobs,
            limit_bytes=limit_bytes,
            stop=stop,
        )

    run.blobs = blobs
    yield run
    assert list(blobs.directory.glob("*.part")) == []


def test_a_file_is_kept_whole(fetch):
    """To the last byte that is allowed."""
    kept = fetch(Instance(body(60), body(40), Frame(FrameKind.END, b"")))
    assert (kept.name, kept.size_bytes) == ("a", 100)
    assert fetch.blobs.all() == (kept.sha256,)


def test_a_file_without_end_is_cut_off(fetch):
    """One byte over the limit, and nothing of it is kept."""
    with pytest.raises(TooLarge, match="blob_too_large"):
        fetch(Instance(body(60), body(41), body(10**6)))
    assert fetch.blobs.all() == ()


def test_an_instance_that_stalls_is_left(fetch, monkeypatch):
    """After its time, with nothing kept."""
    monkeypatch.setattr(files, "STALL_S", 0)
    with pytest.raises(TimedOut, match="frame_timeout"):
        fetch(Instance(body(1)))
    assert fetch.blobs.all() == ()


def test_an_instance_that_trickles_is_left(fetch, monkeypatch):
    """However often it says a byte."""
    monkeypatch.setattr(files, "FILE_S", 0)
    with pytest.raises(TimedOut, match="frame_timeout"):
        fetch(Instance(body(1), body(1), Frame(FrameKind.END, b"")))


def test_a_validator_that_stops_waits_for_nobody(fetch):
    """A stalling instance does not hold up its end."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(Unavailable, match="connection_lost"):
        fetch(Instance(), stop=stop)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (Frame(FrameKind.ERROR, b"{}"), files.FileGone),
        (Frame(FrameKind.PONG, b""), ProtocolError),
    ],
)
def test_what_is_no_file_is_refused(fetch, frame, error):
    """A refusal, or a frame that has no place there."""
    with pytest.raises(error):
        fetch(Instance(body(1), frame))
    assert fetch.blobs.all() == ()
