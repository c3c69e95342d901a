"""The main job of a subnet, end to end on one machine, each step shown. Run by scripts/demo.sh.

A local chain, a validator, two working miners and an idle registered third; a user who registers,
pays, builds, deploys and calls two chutes; and the weights that follow on chain. Only public ways
in are used: the command line, HTTP, and a chain connection of its own.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.base.units import RAO_PER_TAO, format_tao
from scripts.chain_look import find_weights, incentives
from scripts.localnet import ROOT, Localnet, miner_hotkey, wait_until
from scripts.localuser import LocalUser
from scripts.runtimes import Choice, choose, engine_has, ensure_base_image, forget_built

TEXTS = (
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
)
STREAMED = "Miners are paid for the GPUs that really do the work."
IDLE_MINER = 3


@dataclass
class Story:
    """What the demo has so far; `summary` is what --json writes."""

    net: Localnet
    choice: Choice
    started: float = field(default_factory=time.monotonic)
    summary: dict[str, Any] = field(default_factory=dict)
    validator_hotkey: str = ""
    user: LocalUser = field(init=False)
    digests: dict[str, str] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print a step with the time since the start."""
        print(f"\033[1m[{time.monotonic() - self.started:5.1f} s]\033[0m {text}", flush=True)

    def show(self, text: str) -> None:
        """Print a detail of a step."""
        print(f"          {text}", flush=True)


def main() -> int:
    """Run the demo and return its exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(os.environ.get("CHUTES_DEMO_FOLDER", ROOT / ".demo"))
    shutil.rmtree(folder, ignore_errors=True)
    choice = choose(options.runtime)
    net = Localnet(folder, tempo=20, runtime=choice.runtime)
    story = Story(net, choice)
    failed = True
    try:
        _tell(story)
        failed = False
        if options.json:
            options.json.write_text(json.dumps(story.summary, indent=2) + "\n")
        if options.keep:
            _keep(story)
    except KeyboardInterrupt:
        if failed:
            print("\ninterrupted", file=sys.stderr)
    except (ChutesError, httpx.HTTPError, subprocess.TimeoutExpired) as error:
        print(f"\nthe demo failed: {error}\nlogs: {folder / 'logs'}", file=sys.stderr)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        net.stop()
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)
    if not failed:
        story.say("done; everything is stopped")
    return 1 if failed else 0


def _tell(story: Story) -> None:
    start_network(story)
    become_user(story)
    deploy_chutes(story)
    call_embeddings(story)
    call_stream(story)
    show_money(story)
    show_verdicts(story)
    show_weights(story)


def start_network(story: Story) -> None:
    """Start chain and validator; register three miners, start two."""
    net, summary = story.net, story.summary
    story.say(f"runtime {story.choice.runtime}: {story.choice.reason}")
    if story.choice.runtime == "docker":
        story.show("looking for the base image of the examples (made here where it is missing)")
        ensure_base_image()
    story.say("starting a local chain (real Subtensor metadata, 1 s blocks)")
    net.chain.start()
    story.show(f"{net.chain.url}, genesis {net.chain.genesis_hash[:18]}…")
    story.say("starting a validator (its hotkey and coldkeypub only)")
    validator = net.start_validator(1)
    url = str(validator.ready["url"])
    story.user = LocalUser(net, url)
    story.validator_hotkey = str(validator.ready["hotkey"])
    story.show(f"{url}, hotkey {story.validator_hotkey}")
    story.say("registering three miners by extrinsic, starting two (the third stays idle)")
    for number in (1, 2, IDLE_MINER):
        net.register_miner(number)
        story.show(f"miner {number}: hotkey {miner_hotkey(number).ss58_address}")
    for number in (1, 2):
        net.start_miner(number)
    summary |= {
        "gateway_url": url,
        "chain_url": net.chain.url,
        "netuid": net.chain.netuid,
        "runtime": story.choice.runtime,
        "validator_hotkeys": [story.validator_hotkey],
        "miner_hotkeys": [miner_hotkey(n).ss58_address for n in (1, 2, IDLE_MINER)],
    }


def become_user(story: Story) -> None:
    """Create a wallet, register, pay by a transfer, make a key."""
    user = story.user
    story.say("a user creates a wallet, registers and pays 1 TAO by a transfer")
    account = user.register()
    story.show(f"account {account['user_id']}, own payment address {account['payment_address']}")
    user.pay(RAO_PER_TAO)
    story.show("credited after finality: 1.000000000 TAO")
    story.summary["api_key"] = user.make_key()


def deploy_chutes(story: Story) -> None:
    """Build and deploy both examples and wait until they are hot."""
    for name in ("embeddings", "stream"):
        story.say(f"building and deploying examples/{name}.py")
        image = story.user.build(name)
        if story.choice.runtime == "docker":
            # Validator and miners share this machine's engine: what is removed from it now can
            # only come back as the archive that a miner fetches and checks.
            story.digests[name] = forget_built(str(image["image_id"]))
            story.show(f"built, archived, removed from the engine: {story.digests[name][:23]}…")
        else:
            story.show("build: skipped (process runtime); the miner makes a venv from the image")
        chute = story.user.deploy_built(name)
        story.show(f"chute {chute['chute_id']}, version {chute['version']}")
    for name in ("embeddings", "stream"):
        story.say(f"waiting for {name}: launch, graval proof, sealed start")
        story.user.chutes("warmup", name)
        story.show("hot")
        if name in story.digests:
            if not engine_has(story.digests[name]):
                raise Unavailable("image_missing", f"{name} runs from another image")
            story.show("a miner has fetched the image by its digest")
    story.summary["image_digests"] = story.digests


def call_embeddings(story: Story) -> None:
    """Embed four sentences and compare the first with the others."""
    story.say("calling /v1/embeddings (all-MiniLM-L6-v2) through gateway, relay and runner")
    answer = story.user.post("/v1/embeddings", {"model": "embeddings", "input": list(TEXTS)})
    vectors = [item["embedding"] for item in answer.json()["data"]]
    similarities = {
        text: round(sum(a * b for a, b in zip(vectors[0], vector, strict=True)), 4)
        for text, vector in zip(TEXTS[1:], vectors[1:], strict=True)
    }
    for text, value in similarities.items():
        story.show(f"{TEXTS[0]!r} / {text!r}: {value:.4f}")
    story.summary["similarities"] = similarities
    story.summary["invocations"] = [answer.headers["X-Chutes-InvocationID"]]
    # A few more calls, so that the miner has been paid for more than one.
    for text in TEXTS:
        more = story.user.post("/v1/embeddings", {"model": "embeddings", "input": text})
        story.summary["invocations"].append(more.headers["X-Chutes-InvocationID"])


def call_stream(story: Story) -> None:
    """Call the streaming chute and show the words as they come."""
    story.say("calling the streaming chute (server-sent events)")
    user = story.user
    url = f"{user.url}/c/demo-stream/stream"
    words: list[str] = []
    body = {"text": STREAMED, "delay_ms": 60}
    with httpx.stream("POST", url, json=body, headers=user.headers, timeout=150) as answer:
        if answer.status_code != 200:
            answer.read()
            raise Unavailable("stream_failed", f"{answer.status_code} {answer.text}")
        story.summary["invocations"].append(answer.headers["X-Chutes-InvocationID"])
        print("          ", end="")
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                words.append(json.loads(line[len("data: ") :])["word"])
                print(words[-1], end=" ", flush=True)
        print()
    if " ".join(words) != STREAMED:
        raise Unavailable("stream_broken", f"the stream said {' '.join(words)!r}")


def show_money(story: Story) -> None:
    """Show that the ledger charged exactly the calls that were made."""
    story.say("the ledger")
    made = set(story.summary["invocations"])
    user = story.user
    wait_until(lambda: len(user.charges()) >= len(made), 120, "the calls to be settled")
    charges = user.charges()
    if {invocation for invocation, _ in charges} != made or len(charges) != len(made):
        raise Unavailable("ledger_differs", f"charged {charges}, made {sorted(made)}")
    for invocation, rao in charges:
        story.show(f"invocation {invocation}: {rao} rao")
    total = sum(rao for _, rao in charges)
    left = user.balance_rao()
    if left != RAO_PER_TAO - total:
        raise Unavailable("ledger_differs", f"balance {left}, charges {total}")
    story.show(f"charged {total} rao for {len(made)} calls; balance {format_tao(left)} TAO")
    story.summary["charge_rao"] = total


def show_verdicts(story: Story) -> None:
    """Show what attestation said of the instances that answered."""
    story.say("graval verdicts (profile test: a CPU stands in for each GPU)")
    verdicts = story.user.get("/verdicts")["items"]
    for proof in verdicts:
        for gpu in proof["gpus"]:
            story.show(
                f"{gpu['gpu_class']} of {proof['miner_hotkey'][:10]}…: "
                f"{'accepted' if gpu['accepted'] else gpu['reason']}, "
                f"leg 1 {gpu['leg1_us'] / 1000:.0f} ms, leg 2 {gpu['leg2_us'] / 1000:.0f} ms"
            )
    story.summary["verdicts"] = verdicts


def show_weights(story: Story) -> None:
    """Wait until the validator's weights are final and have become incentive."""
    story.say("waiting for the epoch: weights by extrinsic, then incentive")
    net = story.net
    working = [miner_hotkey(n).ss58_address for n in (1, 2)]
    found = find_weights(net.chain.url, net.chain.netuid, story.validator_hotkey, working)
    story.show(f"extrinsic {found.extrinsic_hash} in finalized block {found.block_number}")
    story.show(f"weights by uid: {found.weights}")
    shares: dict[str, float] = {}

    def arrived() -> bool:
        nonlocal shares
        shares = incentives(net.chain.url, net.chain.netuid)
        return all(shares.get(hotkey, 0) > 0 for hotkey in working)

    wait_until(arrived, 180, "the epoch to turn weights into incentive", poll_s=1.0)
    for number in (1, 2, IDLE_MINER):
        hotkey = miner_hotkey(number).ss58_address
        story.show(f"miner {number}: incentive {shares[hotkey]:.4f}")
    if shares[miner_hotkey(IDLE_MINER).ss58_address] != 0:
        raise Unavailable("idle_paid", "the idle miner got incentive")
    story.summary |= {
        "weights_extrinsic": found.extrinsic_hash,
        "weights_block": found.block_number,
        "incentive": {
            miner_hotkey(n).ss58_address: shares[miner_hotkey(n).ss58_address]
            for n in (1, 2, IDLE_MINER)
        },
    }


def _keep(story: Story) -> None:
    story.say("the network stays up; Ctrl-C ends it")
    story.show(f"gateway  {story.user.url}")
    story.show(f"API key  {story.user.api_key}")
    story.show(f"chain    {story.net.chain.url} (netuid {story.net.chain.netuid})")
    while True:
        signal.pause()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo.sh", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary here")
    parser.add_argument("--keep", action="store_true", help="leave the network running")
    parser.add_argument(
        "--runtime",
        choices=["docker", "process"],
        help="how instances run; default: docker where it can be used, else process",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
