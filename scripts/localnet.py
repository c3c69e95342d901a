"""A whole subnet of real processes on this machine: chain, validators, miners, and their wallets.

Used by scripts/demo.py and by the end-to-end tests. Everything it writes lies under one folder, and
`stop` ends every process it started, the last first. Invariant: a neuron's folder holds a hotkey
and a coldkeypub, never a coldkey; coldkeys (of a devnet: well-known) stay with this script.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bittensor_core import Keypair, serialized_keypair_to_keyfile_data

from chutes_core.base.errors import TimedOut, Unavailable
from chutes_core.devnet.launch import DevnetProcess

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 180.0  # bounds a hang; a busy machine needs its time
STOP_TIMEOUT_S = 60.0
HOTKEY = "default"
PAYMENT_TREASURY = "//Treasury//payment"
DEPOSIT_TREASURY = "//Treasury//deposit"


@dataclass
class Process:
    """One neuron that was started here."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path
    ready: Mapping[str, object]

    @property
    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self.popen.poll() is None

    def kill(self) -> None:
        """Kill it at once (SIGKILL), as a power cut would."""
        self.popen.kill()
        self.popen.wait()

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ask it to end (SIGTERM), wait, and return its exit code."""
        if self.alive:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimedOut("slow_stop", f"{self.name} did not stop; see {self.log}") from None

    def tail(self, lines: int = 25) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Localnet:
    """A devnet with neurons around it.

    Args:
        folder: for wallets, data and logs; made if missing.
        block_seconds: block time of the chain.
        tempo: blocks per epoch.
        foreign_genesis: a chain that does not say that it is a devnet.
        runtime: of validators and miners, docker or process (see scripts/runtimes.py).
    """

    def __init__(
        self,
        folder: Path,
        *,
        block_seconds: float = 1.0,
        tempo: int = 20,
        foreign_genesis: bool = False,
        runtime: str = "process",
    ) -> None:
        self.folder = folder
        self.runtime = runtime
        self.chain = DevnetProcess(
            block_seconds=block_seconds,
            tempo=tempo,
            foreign_genesis=foreign_genesis,
            log=self._log("chain"),
        )
        self._processes: list[Process] = []

    def __enter__(self) -> "Localnet":
        self.chain.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process, the last started first, and the chain at the very end."""
        for process in reversed(self._processes):
            if process.alive:
                with contextlib.suppress(TimedOut):
                    process.terminate()
        self._processes.clear()
        self.chain.stop()

    def start_validator(
        self, number: int, *, port: int = 0, extra: Mapping[str, str] | None = None
    ) -> Process:
        """Start validator 1 or 2 (both are in the devnet's genesis) and wait until it serves.

        Raises:
            Unavailable: it ended instead; the message holds the end of its log.
        """
        name = f"validator-{number}"
        coldkey = Keypair.create_from_uri(f"//Validator{number}")
        hotkey = Keypair.create_from_uri(f"//Validator{number}//hotkey")
        settings = {
            "PORT": str(port),
            "RUNTIME": self.runtime,
            "PROFILE": "test",
            "PAYMENT_TREASURY": Keypair.create_from_uri(PAYMENT_TREASURY).ss58_address,
            "DEPOSIT_TREASURY": Keypair.create_from_uri(DEPOSIT_TREASURY).ss58_address,
            "POLL_SECONDS": "1",
            "RENEW_SECONDS": "3",
            **(extra or {}),
        }
        return self._start(name, "validator", coldkey, hotkey, settings)

    def start_miner(self, number: int, *, extra: Mapping[str, str] | None = None) -> Process:
        """Start a registered miner with one declared stand-in GPU and wait until it serves.

        Raises:
            Unavailable: it ended instead; the message holds the end of its log.
        """
        settings = self._miner_settings(extra)
        name, coldkey = f"miner-{number}", miner_coldkey(number)
        return self._start(name, "miner", coldkey, miner_hotkey(number), settings)

    def ask_miner(
        self, number: int, *words: str, extra: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of a miner's operator (`doctor`, `status`) with that miner's settings."""
        name = f"miner-{number}"
        return subprocess.run(
            [sys.executable, str(ROOT / "neurons" / "miner.py"), *words],
            capture_output=True,
            text=True,
            env=self._environ(self._prefixed(name, "miner", self._miner_settings(extra))),
            timeout=START_TIMEOUT_S,
            check=False,
        )

    def register_miner(self, number: int) -> None:
        """Register a miner's hotkey with its coldkey, as its operator would.

        Raises:
            Unavailable: the registration failed.
        """
        wallets = self.folder / "operators"
        name = f"miner-{number}"
        write_wallet(wallets, name, miner_coldkey(number), miner_hotkey(number), with_coldkey=True)
        done = subprocess.run(
            [
                *(sys.executable, str(ROOT / "scripts" / "register.py")),
                *("--network", self.chain.url, "--netuid", str(self.chain.netuid)),
                *("--wallet-path", str(wallets), "--wallet-name", name, "--hotkey", HOTKEY),
                "--yes",
            ],
            capture_output=True,
            text=True,
            env=self._environ({}),
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise Unavailable("register_failed", done.stderr.strip()[-2000:])

    def _start(
        self, name: str, role: str, coldkey: Keypair, hotkey: Keypair, settings: dict[str, str]
    ) -> Process:
        home = self.folder / name
        write_wallet(home / "wallets", name, coldkey, hotkey, with_coldkey=False)
        ready = home / "ready.json"
        ready.unlink(missing_ok=True)
        prefixed = self._prefixed(name, role, settings)
        log = self._log(name)
        with log.open("ab") as stream:
            popen = subprocess.Popen(
                [sys.executable, str(ROOT / "neurons" / f"{role}.py")],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self._environ(prefixed),
                start_new_session=True,  # Ctrl-C reaches us alone; we stop neurons in order
            )
        process = Process(name, popen, log, {})
        self._processes.append(process)
        wait_until(lambda: ready.exists() or not process.alive, START_TIMEOUT_S, f"{name} to serve")
        if not ready.exists():
            raise Unavailable("neuron_ended", f"{name} ended at its start:\n{process.tail()}")
        process.ready = json.loads(ready.read_text())
        return process

    def _miner_settings(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        return {
            "HOST": "127.0.0.1",
            "PORT": "0",
            "RELAY_PORT": "0",
            "EXTERNAL_IP": "127.0.0.1",
            "RUNTIME": self.runtime,
            "DECLARE_GPU": "h100_sxm:1",
            "POLL_SECONDS": "1",
            "DRAIN_SECONDS": "10",
            "STAND_BYS": "0",  # two cores do not hold ready what tests may want
            **(extra or {}),
        }

    def _prefixed(self, name: str, role: str, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a neuron, its own files and chain included."""
        home = self.folder / name
        own = {
            "WALLET_PATH": str(home / "wallets"),
            "WALLET_NAME": name,
            "HOTKEY": HOTKEY,
            "CHAIN_URL": self.chain.url,
            "NETUID": str(self.chain.netuid),
            "DATA_DIR": str(home / "data"),
            "READY_FILE": str(home / "ready.json"),
        }
        return {f"CHUTES_{role.upper()}_{k}": v for k, v in {**own, **settings}.items()}

    def _log(self, name: str) -> Path:
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        return logs / f"{name}.log"

    def _environ(self, settings: Mapping[str, str]) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CHUTES_")}
        temporary = self.folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return {
            **kept,
            "PYTHONUNBUFFERED": "1",
            "BITTENSOR_RUNTIME_CACHE_DIR": str(self.folder / "chain-cache"),
            "TMPDIR": str(temporary),
            **settings,
        }


def miner_coldkey(number: int) -> Keypair:
    """Return the devnet coldkey of a miner (funded at genesis for 1 to 3)."""
    return Keypair.create_from_uri(f"//Miner{number}")


def miner_hotkey(number: int) -> Keypair:
    """Return the devnet hotkey of a miner."""
    return Keypair.create_from_uri(f"//Miner{number}//hotkey")


def write_wallet(
    path: Path, name: str, coldkey: Keypair, hotkey: Keypair, *, with_coldkey: bool
) -> None:
    """Write a wallet in btcli's layout: hotkey, coldkeypub, and on request the coldkey."""
    wallet = path / name
    (wallet / "hotkeys").mkdir(parents=True, exist_ok=True)
    _write_key(wallet / "hotkeys" / HOTKEY, hotkey)
    public = Keypair(
        ss58_address=coldkey.ss58_address,
        public_key=bytes(coldkey.public_key),
        crypto_type=coldkey.crypto_type,
        ss58_format=coldkey.ss58_format,
    )
    _write_key(wallet / "coldkeypub.txt", public)
    if with_coldkey:
        _write_key(wallet / "coldkey", coldkey)


def wait_until(
    condition: Callable[[], bool], timeout_s: float, what: str, *, poll_s: float = 0.1
) -> None:
    """Wait until a condition of another process holds.

    Raises:
        TimedOut: ``waited_too_long``, naming what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimedOut("waited_too_long", f"waited {timeout_s:.0f} s for {what}")
        time.sleep(poll_s)


def _write_key(file: Path, keypair: Keypair) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(serialized_keypair_to_keyfile_data(keypair))
