"""Chain, validator and miner on one host with a real GPU: a node attestation and a GPU chute.

Run by scripts/gpu_host_run.sh. The miner finds the GPUs through NVML, nothing is declared; the
process runtime is used, so what a container adds is not tried here. Every step is written to the
report as soon as it is known: a run that fails says how far it got.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.base.units import RAO_PER_TAO
from scripts.localnet import ROOT, Localnet, Process, wait_until
from scripts.localuser import LocalUser

ATTEST_S = 60.0
LIGHT_S = 60.0
CHUTE = "gpu_matmul"


class Report:
    """What is known so far; rewritten after each step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = time.monotonic()
        self.facts: dict[str, Any] = {"steps": [], "passed": False}

    def step(self, name: str, **facts: object) -> None:
        """Add a step with the seconds since the start."""
        entry = {"step": name, "at_s": round(time.monotonic() - self._began, 2), **facts}
        self.facts["steps"].append(entry)
        print(json.dumps(entry), flush=True)
        self.write()

    def write(self) -> None:
        """Write the report."""
        self._path.write_text(json.dumps(self.facts, indent=2) + "\n")


def main() -> int:
    """Run the steps; the exit status."""
    options = _options()
    report = Report(options.json)
    report.facts |= _host(options.gpu_python)
    net = Localnet(options.folder, block_seconds=0.5, tempo=40)
    try:
        net.chain.start()
        _tell(net, report, options)
        report.facts["passed"] = True
    except (ChutesError, subprocess.SubprocessError, KeyError) as error:
        report.step("failed", error=str(error)[-3000:])
    finally:
        net.stop()
        report.facts["logs"] = {
            log.stem: log.read_text(errors="replace")[-6000:]
            for log in sorted((options.folder / "logs").glob("*.log"))
        }
        report.write()
    return 0 if report.facts["passed"] else 1


def _tell(net: Localnet, report: Report, options: argparse.Namespace) -> None:
    report.step("chain", url=net.chain.url)
    validator = net.start_validator(
        1, extra={"PROFILE": options.profile, "LIGHT_SECONDS": "20", "ROUND_ONE_IN": "0"}
    )
    net.register_miner(1)
    extra = {"DECLARE_GPU": "", "GPU_PYTHON": str(options.gpu_python)}
    report.step("before", vram_used_mib=_vram_used_mib())
    miner = net.start_miner(1, extra=extra)
    report.step("neurons", gpus=miner.ready["gpus"])
    user = LocalUser(net, str(validator.ready["url"]))
    user.register()
    user.pay(RAO_PER_TAO)
    user.make_key()
    _await_proof(user, report, "node", ATTEST_S)
    ports = {"PORT": str(miner.ready["port"]), "RELAY_PORT": str(miner.ready["relay_port"])}
    _ask(net, report, "doctor", {**extra, **ports})
    _ask(net, report, "status", extra)
    user.deploy(CHUTE)
    report.step("deployed")
    user.chutes("warmup", CHUTE)
    _await_proof(user, report, "instance", ATTEST_S)
    answer = user.post("/c/demo-gpu-matmul/matmul", {"times": 50})
    report.step("called", answer=answer.json(), invocation=answer.headers["X-Chutes-InvocationID"])
    if options.light:
        _await_proof(user, report, "light", LIGHT_S)
        again = user.post("/c/demo-gpu-matmul/matmul", {"times": 50})
        report.step("called after the light challenge", answer=again.json())
    _ask(net, report, "status", extra)
    _drain(miner, report)


def _ask(net: Localnet, report: Report, word: str, extra: dict[str, str]) -> None:
    """Run the doctor or the status; what it says is told, and stops nothing."""
    try:
        done = net.ask_miner(1, word, "--json", extra=extra)
        said = json.loads(done.stdout)
        report.step(word, exit_code=done.returncode, said=said, errors=done.stderr[-500:])
    except (subprocess.SubprocessError, ValueError) as error:
        report.step(word, error=str(error)[-1000:])


def _drain(miner: Process, report: Report) -> None:
    """End the miner as its operator would, and watch the memory come back."""
    serving, began = _vram_used_mib(), time.monotonic()
    code = miner.terminate()
    ended_s = round(time.monotonic() - began, 2)
    report.step("drained", exit_code=code, seconds=ended_s, vram_serving_mib=serving)
    report.step("after", vram_used_mib=_vram_used_mib())


def _vram_used_mib() -> list[int]:
    """Return the used memory of each GPU."""
    said = _output(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"])
    return [int(line) for line in said.splitlines() if line.strip().isdigit()]


def _await_proof(user: LocalUser, report: Report, scope: str, timeout_s: float) -> None:
    proofs: list[dict[str, Any]] = []

    def there() -> bool:
        proofs[:] = [p for p in user.get("/verdicts")["items"] if p["scope"] == scope]
        return any(proof["accepted"] for proof in proofs)

    try:
        wait_until(there, timeout_s, f"an accepted proof of scope {scope}", poll_s=0.5)
    finally:
        report.step(f"proofs of scope {scope}", proofs=proofs)
    if not any(proof["accepted"] for proof in proofs):
        raise Unavailable("not_accepted", f"no proof of scope {scope} was accepted")


def _host(gpu_python: Path) -> dict[str, Any]:
    code = "import torch, triton; print(torch.__version__, triton.__version__)"
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "gpus": _output(
            ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        ),
        "prover_torch_triton": _output([str(gpu_python), "-c", code]),
        "left_out": ["docker runtime", "several GPUs"],
    }


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        return str(error)
    return done.stdout.strip()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu_host_run.sh", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("gpu_host.json"))
    parser.add_argument("--folder", type=Path, default=ROOT / ".gpu-host")
    parser.add_argument("--gpu-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--profile", choices=("periodic", "admission"), default="periodic")
    parser.add_argument("--light", action="store_true", help="also wait for a light challenge")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
