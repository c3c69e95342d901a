"""Start a devnet as a child process; for tests of every room and for the demo.

    with DevnetProcess(block_seconds=0.25, tempo=10) as devnet:
        client = bittensor.Client(devnet.url)

Invariant: after `stop` the child is gone and its temporary folder removed. This module imports
neither bittensor nor the chain itself.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from chutes_core.base.errors import TimedOut, Unavailable
from chutes_core.devnet.controls import Controls

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0

_POLL_S = 0.02
_TAIL_BYTES = 4_000


class DevnetProcess:
    """A running devnet; a context manager, or `start` and `stop`.

    Args:
        block_seconds: block time.
        tempo: blocks per epoch.
        foreign_genesis: leave out the devnet marker.
        validators: how many are registered at genesis.
        dev_controls: let `controls` steer it (blocks, time, storage, faults).
        state: file that keeps the chain over `stop`, `kill` and `start`.
        extra: more options of ``python -m chutes_core.devnet``.
        log: where its standard error goes; a temporary file when None.
        start_timeout_s: how long it may take until it listens.
    """

    def __init__(
        self,
        *,
        block_seconds: float = 1.0,
        tempo: int = 20,
        foreign_genesis: bool = False,
        validators: int = 2,
        dev_controls: bool = False,
        state: Path | None = None,
        extra: Sequence[str] = (),
        log: Path | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.url = ""
        self.netuid = 0
        self.genesis_hash = ""
        self._options = [
            *("--block-seconds", str(block_seconds), "--tempo", str(tempo)),
            *("--validators", str(validators), *extra),
        ]
        if foreign_genesis:
            self._options.append("--foreign-genesis")
        if dev_controls:
            self._options.append("--dev-controls")
        if state is not None:
            self._options += ["--state", str(state)]
        self._port = 0
        self._log = log
        self._start_timeout_s = start_timeout_s
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the child; it must be running."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start the child and wait until it listens; a second start takes the same port again.

        Raises:
            Unavailable: ``devnet_failed``: it ended instead, e.g. for want of metadata.
            TimedOut: ``devnet_slow``.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="chutes-devnet-"))
        ready_file = self._folder / "ready.json"
        log = self._log or self._folder / "devnet.log"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CHUTES_DEVNET_")}
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "chutes_core.devnet", "--port", str(self._port)),
                    *("--ready-file", str(ready_file), *self._options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environ,
            )
        try:
            self._wait(ready_file, log)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> int | None:
        """Stop the child; return its exit code, None when none was running."""
        code = None
        if self._process is not None:
            self._process.terminate()
            try:
                code = self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                code = self._process.wait()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        return code

    def kill(self) -> None:
        """End the child at once (SIGKILL), as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.stop()

    def controls(self) -> Controls:
        """Return the remote control; the child was started with ``dev_controls``."""
        return Controls(self.url)

    def _wait(self, ready_file: Path, log: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._start_timeout_s
        while not ready_file.exists():
            if self._process.poll() is not None:
                raise Unavailable("devnet_failed", f"the devnet ended: {_tail(log)}")
            if time.monotonic() > deadline:
                raise TimedOut("devnet_slow", f"the devnet does not listen: {_tail(log)}")
            time.sleep(_POLL_S)
        ready = json.loads(ready_file.read_text("utf-8"))
        self.url = str(ready["url"])
        self._port = int(self.url.rpartition(":")[2])
        self.netuid = int(ready["netuid"])
        self.genesis_hash = str(ready["genesis_hash"])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _tail(log: Path) -> str:
    return log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").strip()
