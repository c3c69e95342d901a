"""How often one device passes for several in a round: measured beside the model; JSON on stdout.

    python tests/bench/graval_rounds.py [--backend triton|numpy] [--rounds 5] [--out FILE]

In a round every challenged instance and idle GPU gets its first leg at the same instant, and works
for half a second at least. The cheaters have one device:

    honest             one instance on it: the control, which must pass
    two instances      a prover process for each, at once
    two hotkeys        the same, with different hotkeys in the seeds, so that nothing can be shared
    ten idle           ten GPUs are claimed and one is there, a process for each
    ten, one by one    the same, one prover that finishes one challenge before it begins the next

Deadlines are the verifier's. The model: n that share a device take n times as long, and 1.30 and
1.10 times is allowed, so none passes at once, and one of n passes who are served one by one. A
miner passes a round only with all of its instances. With numpy (no GPU) the device is one core and
the reference is the median of this very machine, measured first.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from chutes_core.validator.attest.work import Work, work_for
from graval import bench, messages
from graval.challenge import Answer
from graval.messages import Kind, Message, Warm
from graval.params import PROFILES, deadlines
from graval.prover import __main__ as prover_process
from graval.verifier import Challenge, build_challenge, check

LEAST_US = 500_000
KINDS = (
    ("honest", 1, "at once", 1.0),
    ("two instances", 2, "at once", 0.0),
    ("two hotkeys", 2, "at once", 0.0),
    ("ten idle", 10, "at once", 0.0),
    ("ten, one by one", 10, "one by one", 0.1),
)


class Tenant:
    """One prover process on the shared device."""

    def __init__(self, backend: str, number: int) -> None:
        command = [sys.executable, __file__, "--tenant", backend, "--number", str(number)]
        environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
        )
        self._lock = threading.Lock()

    def warm(self) -> Warm:
        """Wait until it is warm."""
        first = messages.read(self._child.stdout)
        assert first is not None
        assert first.kind is Kind.WARM, first.body[:500]
        return Warm.from_bytes(first.body)

    def answer(self, challenge: Challenge) -> tuple[bytes, bytes, int, int]:
        """Have both legs answered: digests and microseconds since the legs were sent."""
        digests, times = [], []
        for kind, leg in ((Kind.LEG1, challenge.leg1), (Kind.LEG2, challenge.leg2)):
            sent = time.perf_counter_ns()
            messages.write(self._child.stdin, Message(kind, leg.to_bytes()))
            reply = messages.read(self._child.stdout)
            times.append((time.perf_counter_ns() - sent) // 1000)
            assert reply is not None
            digests.append(Answer.from_bytes(reply.body).digest)
        return digests[0], digests[1], times[0], times[1]

    def close(self) -> None:
        """End it."""
        messages.write(self._child.stdin, Message(Kind.QUIT))
        self._child.wait(60)


def main() -> int:
    """Measure every kind; 0 when the control passed."""
    options = _options()
    if options.tenant:
        return _be_a_tenant(options.tenant, options.number)
    figures = []
    work: Work | None = None
    for name, count, manner, model in KINDS:
        processes = count if manner == "at once" else 1
        tenants = [Tenant(options.backend, number) for number in range(processes)]
        warms = [tenant.warm() for tenant in tenants]
        if work is None:
            work = _work(tenants[0], warms[0])
        for warm, tenant in zip(warms, tenants, strict=True):
            tenant.answer(_challenge(warm, work, name, 0))  # a rehearsal
        rounds = [_round(tenants, warms, work, name, count) for _ in range(options.rounds)]
        for tenant in tenants:
            tenant.close()
        figures.append(_figures(name, count, model, rounds))
        print(json.dumps(figures[-1]), file=sys.stderr, flush=True)
    assert work is not None
    report = {
        "device": dataclasses.asdict(warms[0].device),
        "date": time.strftime("%Y-%m-%d"),
        "versions": bench.versions(),
        "work": {"layers": work.profile.layers, "stages": work.profile.stages,
                 "passes": work.passes, "due1_us": work.due.leg1_us, "due2_us": work.due.leg2_us,
                 "basis": work.known.basis},
        "kinds": figures,
    }  # fmt: skip
    text = json.dumps(report, indent=2)
    if options.out:
        Path(options.out).write_text(text + "\n")
    print(text)
    return 0 if figures[0]["instance_pass_rate"] >= 0.5 else 1


def _round(
    tenants: list[Tenant], warms: list[Warm], work: Work, name: str, count: int
) -> list[tuple[bool, int, int]]:
    """One round: for each claimed GPU whether it passed, and its slowest legs."""
    challenges = [
        [_challenge(warms[n % len(warms)], work, name, n) for _ in range(work.passes)]
        for n in range(count)
    ]
    gate = threading.Barrier(count)
    done: list[tuple[bool, int, int]] = [(False, 0, 0)] * count
    turns = threading.Lock()

    def run(n: int) -> None:
        gate.wait()
        began = time.perf_counter_ns()
        alone = len(tenants) == 1
        if alone:
            turns.acquire()  # the one prover finishes with one before it begins the next
        try:
            waited_us = (time.perf_counter_ns() - began) // 1000
            verdicts = []
            for challenge in challenges[n]:
                one, two, leg1_us, leg2_us = tenants[n % len(tenants)].answer(challenge)
                leg1_us, waited_us = leg1_us + waited_us, 0
                verdict = check(challenge, one, two, leg1_us, leg2_us, work.due)
                assert not verdict.failed
                verdicts.append((verdict.accepted, leg1_us, leg2_us))
        finally:
            if alone:
                turns.release()
        done[n] = (
            all(ok for ok, _, _ in verdicts),
            max(leg1 for _, leg1, _ in verdicts),
            max(leg2 for _, _, leg2 in verdicts),
        )

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def _figures(
    name: str, count: int, model: float, rounds: list[list[tuple[bool, int, int]]]
) -> dict[str, object]:
    each = [one for of in rounds for one in of]
    return {
        "kind": name,
        "claimed": count,
        "rounds": len(rounds),
        "instance_pass_rate": round(sum(ok for ok, _, _ in each) / len(each), 3),
        "instance_pass_model": model,
        "miner_pass_rate": round(sum(all(ok for ok, _, _ in of) for of in rounds) / len(rounds), 3),
        "miner_pass_model": 1.0 if count == 1 else 0.0,
        "leg1_us": int(statistics.median(leg1 for _, leg1, _ in each)),
        "leg2_us": int(statistics.median(leg2 for _, _, leg2 in each)),
    }


def _work(tenant: Tenant, warm: Warm) -> Work:
    """What a round asks of this device; a stand-in's reference is measured here and now."""
    device = warm.device
    if not device.stand_in:
        return work_for(
            PROFILES["light"], device.short_name, device.memory_bytes, rtt_us=0, least_us=LEAST_US
        )
    profile = dataclasses.replace(PROFILES["test"], layers=8, stages=24)
    known = dataclasses.replace(
        work_for(PROFILES["test"], device.short_name, device.memory_bytes, rtt_us=0).known,
        stages=profile.stages,
        basis="measured here",
    )
    work = Work(profile, known, deadlines(profile, known, 0), profile.rows(0), 1)
    times = [tenant.answer(_challenge(warm, work, "calibration", 0))[2:] for _ in range(5)]
    known = dataclasses.replace(
        known,
        leg1_us=int(statistics.median(one for one, _ in times)),
        leg2_us=int(statistics.median(two for _, two in times)),
    )
    return dataclasses.replace(work, known=known, due=deadlines(profile, known, 0))


def _challenge(warm: Warm, work: Work, kind: str, number: int) -> Challenge:
    hotkey = f"hotkey {number}" if kind == "two hotkeys" else "hotkey"
    context = dataclasses.replace(
        bench.context_of(warm.device, work.profile, work.rows),
        miner_hotkey=hotkey,
        instance_id=f"instance {number}",
    )
    return build_challenge(context, work.profile, secret=os.urandom(32))


def _be_a_tenant(backend: str, number: int) -> int:
    """The prover of a cheater: takes no more memory than its fill needs, so that others fit."""
    if backend == "numpy":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the one device: a core
        return prover_process.main(
            ["--backend", "numpy", "--declare", "h100_sxm", "--gpu", str(number)]
        )
    from graval.prover import cuda

    cuda.FillMemory.reserve = lambda *_: None  # type: ignore[method-assign]
    return prover_process.main(["--backend", backend, "--gpu", "0"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=("triton", "numpy"), default="triton")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    parser.add_argument("--tenant", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
