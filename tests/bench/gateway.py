"""The gateway against nginx, FastAPI + aiohttp and other servers of models: one interleaved run.

Same payload, same origin. The contender has one core (the first), origin and load the next two or,
where there are only two, the other; the figures of a contender are medians over the rounds, and of
CPU time also the least, which a busy machine disturbs least. CPU time is that of all the
contender's own processes, from /proc. The gateway works with key, hold, sealing, journal and
back-pressure on; nginx, FastAPI, BentoML and Ray Serve pass bodies on (LiteLLM looks at its master
key): `bare` and `sealed-bare` (bare.py) are the floor under it, Python without and with sealed
frames. Of streams it also tells how busy each of the three ends was: contender, origin and load
generator, as a share of a core; which of them was full is what ended first. The origin seals what
is ready at once together, as instances do, and writes chunks of HTTP one by one, as ASGI servers
do; "with joined writes" it joins those too, which is as little work as it can have. `cold` is the
gateway's own share in a call to a chute without an instance (woken.py); no other contender waits
for one.
nginx and wrk are found on the PATH (Debian: nginx-light, wrk); without nginx it is left out,
without wrk there is no run. Nothing is asserted: figures on a shared machine are for a person to
read, as ratios.

    python tests/bench/gateway.py [--json] [--rounds N] [--seconds S] [--only NAME ...] [--cpu]
        [--peers [NAME ...]] [--peers-python PATH ...]

--cpu asks for CPU time alone: one span of wrk for each contender and round, no streams. --peers
adds LiteLLM, BentoML and Ray Serve (gateway_peers.py), each by the first of the interpreters that
has it, stopped while others are measured; one that is not there, or does not answer, is named with
the reason.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator

import uvloop
from calling import STREAMS, load, stream
from contenders import BARE, CORE, LOAD_CORE, ORIGIN_CORE, Contender, child, nginx
from gateway_peers import PEERS, answers, interpreters, versions
from woken import woken

CONNECTIONS = 32
PASSING = ("origin", "nginx", *BARE, "gateway", "reference")  # those that pass all headers on
SERVERS = (*BARE, "gateway", "reference", "fastapi")


def measure(contender: Contender, origin: Contender, options: argparse.Namespace) -> None:
    """Run one round of one contender."""
    contender.check_listener()
    if options.cpu:
        contender.note(**load(contender, CONNECTIONS, options.seconds))
        return
    load(contender, CONNECTIONS, 1)  # warm
    contender.note(**load(contender, CONNECTIONS, options.seconds))
    alone = load(contender, 1, options.seconds)
    contender.note(alone_p50_us=alone["p50_us"])
    before = contender.cpu_s(), origin.cpu_s(), time.process_time()
    per_s, ages = uvloop.run(stream(contender, 2000, 0))
    after = contender.cpu_s(), origin.cpu_s(), time.process_time()
    own, origins, loads = ((b - a) / len(ages) * 1e6 for a, b in zip(before, after, strict=True))
    contender.note(
        tokens_per_s=per_s,
        token_cpu_us=own,
        origin_token_cpu_us=origins,
        load_token_cpu_us=loads,
    )
    if contender.name in PASSING:
        per_s, _ = uvloop.run(stream(contender, 2000, 0, "x-joined: 1"))
        contender.note(joined_tokens_per_s=per_s)
    _, ages = uvloop.run(stream(contender, 50, 20_000))
    contender.note(token_p50_us=ages[len(ages) // 2])


def run(options: argparse.Namespace) -> dict[str, object]:
    os.sched_setaffinity(0, {LOAD_CORE})
    loads = [round(os.getloadavg()[0], 2)]
    with contextlib.ExitStack() as stack:
        pid, place = stack.enter_context(child(ORIGIN_CORE, "origin"))
        direct = Contender("origin", pid, place[0], "", "none")
        contenders = [direct]
        if shutil.which("nginx") and "nginx" in options.only:
            contenders.append(stack.enter_context(nginx(place[0])))
        for kind in SERVERS:
            if kind in options.only:
                pid, said = stack.enter_context(child(CORE, kind, json.dumps(place)))
                contenders.append(Contender(kind, pid, *said))
        found, lacking = interpreters(options.peers, options.peers_python)
        peers = list(started(stack, found, place[0], lacking))
        for number in range(options.rounds):
            for contender in (*contenders, *peers):
                print(f"round {number + 1}: {contender.name}", file=sys.stderr)
                with working(contender, peers):
                    measure(contender, direct, options)
        contenders += peers
        cold = woken(place, options) if "gateway" in options.only and not options.cpu else None
        loads.append(round(os.getloadavg()[0], 2))
        return {
            "load_average": loads,
            "peers": {"versions": versions(found), "left_out": lacking},
            **report(contenders, options),
            "cold": {one.name: cold if one.name == "gateway" else None for one in contenders},
        }


def started(
    stack: contextlib.ExitStack, found: dict[str, str], origin: int, lacking: dict[str, str]
) -> Iterator[Contender]:
    """Start the peers, each alone; yields those that answer, at rest, and notes why others lack."""
    for name, python in found.items():
        try:
            peer = stack.enter_context(PEERS[name](python, origin))
            if why := answers(peer):
                raise RuntimeError(why)
        except RuntimeError as error:
            lacking[name] = str(error)
        else:
            peer.rest(True)
            yield peer


@contextlib.contextmanager
def working(contender: Contender, peers: list[Contender]) -> Iterator[None]:
    """Let a peer work only while it is measured."""
    if contender not in peers:
        yield
        return
    contender.rest(False)
    try:
        yield
    finally:
        contender.rest(True)


def report(contenders: list[Contender], options: argparse.Namespace) -> dict[str, object]:
    """Return figures, and the gateway's ratios to each other contender."""
    figures = {one.name: one.figures() for one in contenders}
    for name, row in figures.items():
        if name != "origin" and "alone_p50_us" in row:
            row["added_us"] = round(row["alone_p50_us"] - figures["origin"]["alone_p50_us"], 1)
            added = row["token_p50_us"] - figures["origin"]["token_p50_us"]
            row["added_token_us"] = round(added, 1)
        if "tokens_per_s" in row:
            for end, of in (("", "token_cpu_us"), ("origin_", "origin_token_cpu_us"),
                            ("load_", "load_token_cpu_us")):  # fmt: skip
                row[f"{end}busy"] = round(row[of] * row["tokens_per_s"] / 1e6, 2)
    ours = figures.get("gateway", {})
    ratios = {
        f"gateway/{name}": {
            key: round(ours[key] / row[key], 5)
            for key in ours
            if row.get(key) and "busy" not in key
        }
        for name, row in figures.items()
        if name != "gateway" and ours
    }
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "core_of": {"contender": CORE, "origin": ORIGIN_CORE, "load": LOAD_CORE},
        "connections": CONNECTIONS,
        "streams": STREAMS,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "figures": figures,
        "ratios": ratios,
    }


def table(result: dict) -> str:
    """Return the figures as a Markdown table."""
    columns = (
        ("requests_per_s", "requests/s", 0),
        ("cpu_us", "CPU us/request", 1),
        ("cpu_least_us", "least", 1),
        ("p50_us", "p50 us", 0),
        ("p99_us", "p99 us", 0),
        ("added_us", "added us (1 conn.)", 0),
        ("tokens_per_s", "SSE chunks/s", 0),
        ("joined_tokens_per_s", "with joined writes", 0),
        ("token_cpu_us", "CPU us/chunk", 2),
        ("added_token_us", "added us/token", 0),
        ("busy", "busy, of a stream", 2),
        ("origin_busy", "its origin", 2),
        ("load_busy", "its load", 2),
    )
    lines = [
        "| | " + " | ".join(title for _, title, _ in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in result["figures"].items():
        cells = [f"{row[key]:,.{digits}f}" if key in row else "" for key, _, digits in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, ratios in result["ratios"].items():
        cells = [_ratio(ratios[key]) if key in ratios else "" for key, _, _ in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [f"left out: {name}: {why}" for name, why in result["peers"]["left_out"].items()]
    cold = result["cold"].get("gateway")
    if cold:
        lines.append("cold calls: " + ", ".join(f"{key} {value}" for key, value in cold.items()))
    return "\n".join(lines)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    names = ("nginx", *SERVERS)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--peers", nargs="*", choices=tuple(PEERS), default=None)
    parser.add_argument("--peers-python", nargs="+", default=[sys.executable])
    parser.add_argument("--callers", type=int, default=1000, help="who wait for a cold chute")
    options = parser.parse_args()
    options.peers = () if options.peers is None else options.peers or tuple(PEERS)
    return options


if __name__ == "__main__":
    if not shutil.which("wrk"):
        sys.exit("wrk is not on the PATH (Debian: apt install wrk)")
    wanted = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # children end with us
    made = run(wanted)
    print(json.dumps(made, indent=1) if wanted.json else table(made))
