"""The load of the gateway's benchmark: wrk for calls, and streams that note each token's age."""

import asyncio
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import httptools
from contenders import ASKED, LOAD_CORE, Contender

STREAMS = 20
_STAMP = re.compile(rb't"?:(\d+)')  # when a token left; as JSON or, for LiteLLM, in its content


def load(contender: Contender, connections: int, seconds: float) -> dict[str, float]:
    """Run wrk; return requests/s, median and p99 in microseconds, CPU per request."""
    script = Path(tempfile.gettempdir()) / f"chutes-wrk-{os.getpid()}.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = [[{ASKED}]]\n'
        'wrk.headers["content-type"] = "application/json"\n'
        f'wrk.headers["authorization"] = "Bearer {contender.key}"\n'
    )
    url = f"http://127.0.0.1:{contender.port}{contender.path}{contender.whole}"
    before = contender.cpu_s()
    command = [
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"),
        *("--timeout", "20s", "-s", str(script), url),
    ]
    try:
        out = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
        ).stdout
    finally:
        script.unlink()
    cpu_s = contender.cpu_s() - before
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"{contender.name}: {out}")
    requests = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
    per_s = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    return {
        "requests_per_s": per_s,
        "p50_us": _latency_us(out, "50"),
        "p99_us": _latency_us(out, "99"),
        "cpu_us": cpu_s / max(requests, 1) * 1e6,
    }


class Tokens(asyncio.Protocol):
    """Reads one stream of server-sent events; notes each token's age and how many came."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.ages_us: list[float] = []
        self.done = asyncio.get_running_loop().create_future()
        self.parser = httptools.HttpResponseParser(self)
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        now = time.monotonic_ns()
        *whole, self.tail = (self.tail + data).split(b"\n\n")
        stamps = [_STAMP.search(one) for one in whole]
        self.ages_us += [(now - int(stamp[1])) / 1e3 for stamp in stamps if stamp]

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() != 200:
            self.done.set_exception(RuntimeError(f"a stream was refused: {self.tail!r}"))
        else:
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError("a stream broke off"))


async def stream(
    contender: Contender, count: int, every_us: int, *more: str
) -> tuple[float, list[float]]:
    """Run STREAMS streams at once; return tokens/s and all tokens' ages in microseconds."""
    request = head_of(contender, count, every_us, *more)
    loop = asyncio.get_running_loop()
    begun = time.monotonic()
    readers = []
    for _ in range(STREAMS):
        _, reader = await loop.create_connection(
            lambda: Tokens(request), "127.0.0.1", contender.port
        )
        readers.append(reader)
    await asyncio.gather(*(reader.done for reader in readers))
    took_s = time.monotonic() - begun
    for reader in readers:
        reader.transport.close()
    ages = sorted(age for reader in readers for age in reader.ages_us)
    assert len(ages) == STREAMS * count, f"{contender.name}: {len(ages)} tokens"
    return len(ages) / took_s, ages


def head_of(contender: Contender, count: int, every_us: int, *more: str) -> bytes:
    """Return the request of a stream, with more header lines."""
    lines = [
        f"POST {contender.path}{contender.streamed} HTTP/1.1",
        "host: bench",
        f"authorization: Bearer {contender.key}",
        "content-type: application/json",
        f"x-count: {count}",
        f"x-every-us: {every_us}",
        *more,
        f"content-length: {len(contender.asked)}",
    ]
    return "\r\n".join([*lines, "", contender.asked]).encode()


def _latency_us(out: str, percent: str) -> float:
    match = re.search(rf"\s{percent}%\s+([\d.]+)(us|ms|s)", out)
    assert match is not None, out
    return float(match[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[match[2]]
