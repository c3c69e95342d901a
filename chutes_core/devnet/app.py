"""Constructs the chain, serves it, makes blocks, stops cleanly.

Invariant: the ready file appears, whole, only after the socket listens; SIGTERM and SIGINT end
the process within two seconds.
"""

import asyncio
import json
import os
import signal
from pathlib import Path

from loguru import logger
from websockets.asyncio.server import Server

from chutes_core.base.clock import SystemClock
from chutes_core.devnet.author import Author
from chutes_core.devnet.chain import Chain
from chutes_core.devnet.codec import Codec
from chutes_core.devnet.development import Development
from chutes_core.devnet.genesis import NETUID, GenesisParams
from chutes_core.devnet.metadata import load_metadata, patch_metadata
from chutes_core.devnet.rpc import Rpc
from chutes_core.devnet.server import start_server
from chutes_core.devnet.settings import DevnetSettings
from chutes_core.devnet.state import KEPT_BLOCKS
from chutes_core.devnet.statefile import StateFile

_STOP_TIMEOUT_S = 1.5


def build_chain(settings: DevnetSettings) -> Chain:
    """Load the metadata, and make the genesis or take up the state file.

    Raises:
        NotFound: ``metadata_missing``.
        Invalid: the state file is another chain's, or no state file.
        Conflict: the state file is in use.
    """
    block_ms = max(1, round(settings.block_seconds * 1_000))
    metadata = patch_metadata(load_metadata(settings.metadata), block_ms=block_ms)
    params = GenesisParams(
        tempo=settings.tempo,
        block_ms=block_ms,
        validators=settings.validators,
        foreign=settings.foreign_genesis,
    )
    file = None
    if settings.state is not None:
        file = StateFile(settings.state, kept_blocks=KEPT_BLOCKS)
    return Chain(Codec(metadata), params, file=file)


async def run(settings: DevnetSettings) -> None:
    """Serve until a signal comes."""
    logger.bind(metadata=str(settings.metadata)).info("loading metadata")
    chain = build_chain(settings)
    author = Author(chain, SystemClock())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    author()  # announces the shield's first key
    development = Development(chain, author) if settings.dev_controls else None
    server = await start_server(Rpc(chain, development), settings.host, settings.port)
    url = _url(server, settings.host)
    ready = {"url": url, "netuid": NETUID, "genesis_hash": "0x" + chain.genesis_hash.hex()}
    if settings.ready_file is not None:
        write_ready_file(settings.ready_file, ready)
    logger.bind(**ready, best=chain.best.number).info("listening")
    blocks = asyncio.create_task(author.run(settings.block_seconds))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({blocks, stopped}, return_when=asyncio.FIRST_COMPLETED)
    logger.bind(best=chain.best.number).info("stopping")
    server.close()
    stopped.cancel()
    if blocks.done():
        blocks.result()  # a block could not be made: end with its error
    blocks.cancel()
    await asyncio.wait({asyncio.ensure_future(server.wait_closed())}, timeout=_STOP_TIMEOUT_S)


def write_ready_file(path: Path, ready: dict[str, object]) -> None:
    """Write the file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(ready) + "\n", "utf-8")
    partial.replace(path)


def _url(server: Server, host: str) -> str:
    port = next(iter(server.sockets)).getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    return f"ws://{shown}:{port}"
