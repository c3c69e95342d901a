"""Bounded load: the whole rate for a moment; tests/bench/devnet.py runs it for as long as asked."""

from devnet_load import Load, run_load

from chutes_core.devnet.launch import DevnetProcess


async def test_twenty_clients_keep_it_upright(metadata_file):
    """20 clients, 200 extrinsics a second: all are included, all is answered, blocks go on."""
    with DevnetProcess(block_seconds=0.5, dev_controls=True) as devnet:
        seen = await run_load(devnet, Load(clients=20, rate=200, seconds=3.0))
        still = devnet.controls().best()
        devnet.controls().new_block()
        assert devnet.controls().best() > still
    assert (seen.sent, seen.refused, seen.included) == (600, 0, 600)
    assert seen.unknown_calls_refused > 0
    assert seen.answer_ms_worst < 20_000
    assert seen.blocks >= 5
