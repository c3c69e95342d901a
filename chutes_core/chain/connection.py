"""One connection to a Subtensor node: the SDK's asynchronous backend behind blocking calls.

Below chain/client. The SDK has its own blocking facade, but without a time limit per call; so this
room runs one private event loop on a thread and bounds every call. Invariant: a read is tried
again, with back-off and on a fresh connection, a bounded number of times; a write never is, since
only its caller can know whether the first try reached the pool. A reconnection must find the chain
of the first connection.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import bittensor as bt
from bittensor._transport.errors import SubstrateRequestException  # what `raw` raises; pinned SDK
from websockets.exceptions import WebSocketException

from chutes_core.base.errors import ChainError, Unavailable
from chutes_core.chain.failures import NODE_LOST, closed, refused, unreachable

T = TypeVar("T")
Sleep = Callable[[float], None]

_CLOSE_TIMEOUT_S = 5.0
_DOWN = (
    asyncio.TimeoutError,
    TimeoutError,
    OSError,
    WebSocketException,
    SubstrateRequestException,
    bt.RpcConnectionError,
    bt.ConnectionNotReady,
)


@dataclass(frozen=True)
class Patience:
    """Limits of one connection: seconds per call and until finality, tries of a read, back-off."""

    call_timeout_s: float = 20.0
    finality_timeout_s: float = 180.0
    attempts: int = 4
    first_backoff_s: float = 0.5
    max_backoff_s: float = 8.0


class Connection:
    """Blocking access to one node; safe to call from several threads, one call at a time."""

    def __init__(
        self,
        url: str,
        patience: Patience,
        sleep: Sleep | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.patience = patience
        self._closed = threading.Event()
        self._sleep: Callable[[float], object] = sleep or self._closed.wait
        self._monotonic = monotonic
        self._under_way: Future[Any] | None = None
        self._lock = threading.RLock()
        self._substrate: bt.RpcSubstrate | None = None
        self._genesis_hash: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="chutes-chain", daemon=True
        )
        self._thread.start()

    def read(self, operation: Callable[[bt.RpcSubstrate], Awaitable[T]], doing: str) -> T:
        """Return what ``operation`` reads, on a fresh connection where the old one fails.

        Raises:
            Unavailable: the node stayed unreachable for all attempts.
            ChainError: the node answered with an error.
        """
        with self._lock:
            backoff_s = self.patience.first_backoff_s
            for attempt in range(1, self.patience.attempts + 1):
                try:
                    return self._once(operation, doing)
                except Unavailable as error:
                    if error.code not in NODE_LOST:
                        raise
                    self._drop()
                    if attempt == self.patience.attempts:
                        raise
                self._sleep(backoff_s)
                backoff_s = min(2 * backoff_s, self.patience.max_backoff_s)
            raise AssertionError("the loop returns or raises")

    def write(self, operation: Callable[[bt.RpcSubstrate], Awaitable[T]], doing: str) -> T:
        """Return what ``operation`` did; one try.

        Raises:
            Unavailable: the node was lost; whether the write took place is unknown.
            ChainError: the chain refused it.
        """
        with self._lock:
            try:
                return self._once(operation, doing)
            except Unavailable as error:
                if error.code in NODE_LOST:
                    self._drop()
                raise

    def sleep(self, seconds: float) -> None:
        """Wait between two calls, without keeping others from calling."""
        self._sleep(seconds)

    def monotonic_s(self) -> float:
        """Return the clock by which time limits over several calls are kept."""
        return self._monotonic()

    def close(self) -> None:
        """Cut off what is under way, close the socket, stop the thread; twice does nothing more."""
        self._closed.set()
        under_way = self._under_way
        if under_way is not None:
            under_way.cancel()
        with self._lock:
            if self._loop is None:
                return
            self._drop()
            loop, self._loop = self._loop, None
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(_CLOSE_TIMEOUT_S)
            if not self._thread.is_alive():
                loop.close()

    def _once(self, operation: Callable[[bt.RpcSubstrate], Awaitable[T]], doing: str) -> T:
        try:
            if self._substrate is None:
                self._substrate = self._run(self._open())
            return self._run(self._checked(operation, self._substrate))
        except _DOWN as error:
            raise unreachable(self.url, error) from error
        except bt.BittensorError as error:
            raise refused(error, doing, hotkey_signed=True) from error

    async def _open(self) -> bt.RpcSubstrate:
        substrate = bt.RpcSubstrate(self.url, fallback_endpoints=[], archive_endpoints=[])
        await substrate.connect()
        return substrate

    async def _checked(
        self, operation: Callable[[bt.RpcSubstrate], Awaitable[T]], substrate: bt.RpcSubstrate
    ) -> T:
        """Run the operation on the chain of the first one; the SDK reconnects by itself in between.

        The raw request asks the node; the SDK's own read of block 0 would answer from its cache.
        """
        genesis_hash = await substrate.raw.rpc_request("chain_getBlockHash", [0])
        if self._genesis_hash is None:
            self._genesis_hash = str(genesis_hash)
        if genesis_hash != self._genesis_hash:
            raise ChainError(
                "another_chain",
                f"the node {self.url} now serves the chain {genesis_hash}",
                hint="nothing was read or sent; restart this process if that is meant",
            )
        return await operation(substrate)

    def _drop(self) -> None:
        substrate, self._substrate = self._substrate, None
        if self._loop is None:
            return
        # the socket may be gone already; closing is only tidiness then
        with contextlib.suppress(*_DOWN, bt.BittensorError):
            asyncio.run_coroutine_threadsafe(_dispose(substrate), self._loop).result()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or self._closed.is_set():
            coroutine.close()
            raise closed(self.url)
        limited = asyncio.wait_for(coroutine, self.patience.call_timeout_s)
        future = asyncio.run_coroutine_threadsafe(limited, self._loop)
        self._under_way = future
        if self._closed.is_set():  # closed before it could see what to cut off
            future.cancel()
        try:
            return future.result()
        except CancelledError as error:
            raise closed(self.url) from error
        finally:
            self._under_way = None


async def _dispose(substrate: bt.RpcSubstrate | None) -> None:
    """Close a backend and end what it left running: every task of this loop is its."""
    try:
        if substrate is not None:
            await asyncio.wait_for(substrate.close(), _CLOSE_TIMEOUT_S)
    finally:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
