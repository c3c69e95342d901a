"""A process with --state that is stopped or killed goes on with the same chain."""

import subprocess
import sys

import pytest

from chutes_core.devnet.launch import DevnetProcess


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_it_goes_on_where_it_was(metadata_file, tmp_path, how):
    """Same address, same genesis, same blocks, later times."""
    node = DevnetProcess(block_seconds=0.1, dev_controls=True, state=tmp_path / "chain.db").start()
    try:
        controls, url, genesis = node.controls(), node.url, node.genesis_hash
        controls.set_time(2_000_000_000_000)
        controls.new_block(5)
        announced = controls.best()
        block = controls.call("chain_getBlockHash", announced)
        finalized = controls.finalized()
        getattr(node, how)()
        node.start()
        assert (node.url, node.genesis_hash) == (url, genesis)
        assert controls.call("chain_getBlockHash", announced) == block
        assert controls.best() > announced
        assert controls.finalized() >= finalized
        key = "0xf0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb"
        now_ms = int.from_bytes(bytes.fromhex(controls.call("state_getStorage", key)[2:]), "little")
        assert now_ms > 2_000_000_000_000
    finally:
        node.stop()


def test_a_file_of_another_chain_exits_2(metadata_file, tmp_path):
    """The reason is told, nothing is overwritten."""
    path = tmp_path / "chain.db"
    with DevnetProcess(block_seconds=1, state=path):
        pass
    command = [sys.executable, "-m", "chutes_core.devnet", "--state", str(path), "--tempo", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2
    assert "other parameters" in done.stderr
