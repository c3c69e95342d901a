"""scripts/demo.py as a stranger runs it: its summary holds, it answers, and nothing is left."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from substrateinterface import SubstrateInterface

from chutes_core.chain.client import ChainClient
from scripts.localnet import ROOT, wait_until
from tests.e2e.model import loaded_embeddings
from tests.e2e.patience import CALL_S, PATIENCE_S

PUBLISHED = {
    "That is a happy dog": 0.6946,
    "That is a very happy person": 0.9429,
    "Today is a sunny day": 0.2569,
}
OTHERS = ["Weights are set on chain.", "Ein Satz auf Deutsch, länger als die anderen.", "x"]
DEMO_TIMEOUT_S = 800


def processes_of(folder):
    """Return the living processes whose command or settings name a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(process)
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The kept demo's summary and its process; stopped by SIGTERM at the end."""
    folder = tmp_path_factory.mktemp("demo")
    summary = folder / "out.json"
    environ = {
        **os.environ,
        "TMPDIR": str(folder),
        "BITTENSOR_RUNTIME_CACHE_DIR": str(folder / "chain"),
        "CHUTES_DEMO_FOLDER": str(folder / "network"),
    }
    with (folder / "demo.log").open("wb") as log:
        popen = subprocess.Popen(
            [sys.executable, "scripts/demo.py", "--keep", "--json", str(summary)],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: summary.exists() or popen.poll() is not None, DEMO_TIMEOUT_S, "the summary"
        )
        assert popen.poll() is None, (folder / "demo.log").read_text()
        yield json.loads(summary.read_text()), popen, folder
    finally:
        if popen.poll() is None:
            popen.send_signal(signal.SIGTERM)
            popen.wait(PATIENCE_S)


@pytest.mark.timeout(DEMO_TIMEOUT_S + 100)
def test_the_summary_says_what_was_done(demo):
    """Similarities, charges, verdicts, weights and incentive are all there and right."""
    summary, _, _ = demo
    for text, value in PUBLISHED.items():
        assert abs(summary["similarities"][text] - value) < 0.001
    assert len(set(summary["invocations"])) == len(summary["invocations"]) >= 2
    assert summary["charge_rao"] > 0
    assert all(verdict["accepted"] and verdict["test"] for verdict in summary["verdicts"])
    *working, idle = summary["miner_hotkeys"]
    assert all(summary["incentive"][hotkey] > 0 for hotkey in working)
    assert summary["incentive"][idle] == 0


def test_other_sentences_give_the_models_own_vectors(demo):
    """What comes through gateway, relay and runner equals the model run directly."""
    summary, _, _ = demo
    answer = httpx.post(
        summary["gateway_url"] + "/v1/embeddings",
        json={"model": "embeddings", "input": OTHERS},
        headers={"Authorization": f"Bearer {summary['api_key']}"},
        timeout=CALL_S,
    )
    assert answer.status_code == 200
    served = [item["embedding"] for item in answer.json()["data"]]

    async def direct(chute):
        transport = httpx.ASGITransport(chute)
        async with httpx.AsyncClient(transport=transport, base_url="http://chute") as client:
            return await client.post("/v1/embeddings", json={"input": OTHERS})

    with loaded_embeddings() as chute:
        expected = [item["embedding"] for item in asyncio.run(direct(chute)).json()["data"]]
    for ours, models in zip(served, expected, strict=True):
        assert max(abs(a - b) for a, b in zip(ours, models, strict=True)) < 1e-5


def test_an_own_connection_finds_the_weights_in_a_finalized_block(demo):
    """The extrinsic is in the block that was named, signed by the validator, and succeeded."""
    summary, _, _ = demo
    node = SubstrateInterface(
        url=summary["chain_url"], ss58_format=42, type_registry={"types": {"Balance": "u64"}}
    )
    try:
        finalized = node.get_block_number(node.get_chain_finalised_head())
        assert finalized >= summary["weights_block"]
        block_hash = node.get_block_hash(summary["weights_block"])
        extrinsics = [e.value for e in node.get_block(block_hash)["extrinsics"]]
        index, found = next(
            (i, extrinsic)
            for i, extrinsic in enumerate(extrinsics)
            if extrinsic["extrinsic_hash"] == summary["weights_extrinsic"]
        )
        assert found["call"]["call_function"] == "set_weights"
        assert found["address"] == summary["validator_hotkeys"][0]
        events = [event.value for event in node.get_events(block_hash)]
        assert any(
            event["extrinsic_idx"] == index and event["event_id"] == "ExtrinsicSuccess"
            for event in events
        )
    finally:
        node.close()
    with ChainClient.connect(summary["chain_url"], summary["netuid"]) as chain:
        incentive = {n.hotkey: n.incentive for n in chain.metagraph().neurons}
    *working, idle = summary["miner_hotkeys"]
    assert all(incentive[hotkey] > 0 for hotkey in working)
    assert incentive[idle] == 0


def test_after_sigterm_nothing_is_left(demo):
    """Exit code 0, no process of the demo, none of its files."""
    _, popen, folder = demo
    assert processes_of(folder)
    popen.send_signal(signal.SIGTERM)
    assert popen.wait(PATIENCE_S) == 0
    wait_until(lambda: processes_of(folder) == [], PATIENCE_S, "its last processes to be gone")
    left = {path.name for path in Path(folder).iterdir()}
    assert left <= {"out.json", "demo.log", "chain"}
