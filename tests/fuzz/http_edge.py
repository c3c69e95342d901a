"""Coverage-guided fuzzing of the data plane's edge: bytes to requests, whole and cut, twice.

The parser in C is not instrumented, our callbacks and rules are. What must hold for any bytes: the
only error is a refusal; bodies are what their lengths say; and however the same bytes are cut, and
whatever heads are remembered from before, the same requests come out. Needs atheris (not among the
project's own requirements): see README.md beside this file.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["chutes_core.validator.gateway.plane"]):
    from chutes_core.validator.gateway.plane.reader import Heads, Reader, Refused, Upgrading
from chutes_core.wire.http_server import HttpLimits

LIMITS = HttpLimits(max_head_bytes=4096, max_header_lines=32)
SEEDS = (
    b"POST /a HTTP/1.1\r\nHost: x\r\nX-Api-Key: k\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    b"POST /e HTTP/1.1\r\nHost:x\r\nConnection: Upgrade\r\nUpgrade:a\r\nContent-Length: 1\r\n\r\nb",
    b"POST /d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /e HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x82\x01a",
)
WORDS = (
    "Content-Length: ",
    "Transfer-Encoding: chunked",
    "Connection: close",
    "Expect: 100-continue",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "\\x0d\\x0a",
    "\\x0d\\x0a\\x0d\\x0a",
    "HTTP/1.0",
    "0\\x0d\\x0a\\x0d\\x0a",
)
REMEMBERED = Heads()


def read(pieces, heads):
    """Return the facts of the requests that a connection makes of pieces, and how it ended."""
    found = []
    reader = Reader(LIMITS, heads, found.append)
    end = "open"
    try:
        for piece in pieces:
            request = reader.known(piece)
            if request is not None:
                found.append(request)
            else:
                reader.feed(piece)
            if found and found[-1].complete and not found[-1].keep_alive:
                end = "last"
                break
    except Refused:
        end = reader.refusal.code
    except Upgrading:
        end = "upgrade"
    for request in found:
        if request.complete and request.length is not None:
            assert request.received == request.length, "a body of another length"
    whole = [r for r in found if r.complete]
    return [(r.shape.method, r.shape.url, r.shape.headers, r.body()) for r in whole], end


def one(data):
    """Check one input: its first byte says where it is cut."""
    if len(data) < 3:
        return
    at = 1 + data[0] % (len(data) - 1)
    data = data[1:]
    together = read([data], Heads())
    cut = read([data[: at - 1], data[at - 1 :]], Heads()) if 1 < at <= len(data) else together
    again = read([data, data], Heads())
    known = read([data, data], REMEMBERED)
    assert again == known, "what is remembered changes what is read"
    shared = min(len(together[0]), len(cut[0]))
    assert together[0][:shared] == cut[0][:shared], "a cut changes what is read"


def main():
    """Fuzz until stopped, or as long as libFuzzer's flags say."""
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS):
            one(b"\x05" + seed)
            Path(folder, str(number)).write_bytes(b"\x05" + seed)
        words = Path(folder, "words.txt")
        words.write_text("".join(f'"{word}"\n' for word in WORDS))
        atheris.Setup([*sys.argv, f"-dict={words}", folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
