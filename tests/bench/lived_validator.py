"""The real validator process over a store that was filled beforehand, to be killed or watched.

A devnet, the validator's own entrance (neurons/validator.py) with its HTTP, journal, ledger and
loops, and instances that the harness plays (sealed_origin.py): they stand in the store as active
launches of a neuron of the devnet's genesis. Run as a script it is the validator's parent: it
imports everything once and forks a life for each line on its standard input, so that a start costs
a fraction of a second.
"""

import asyncio
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bittensor_core import Keypair

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from chutes_core.base import ids  # noqa: E402
from chutes_core.devnet.launch import DevnetProcess  # noqa: E402
from chutes_core.validator.domain.accounts import Account, ApiKey  # noqa: E402
from chutes_core.validator.domain.chutes import Chute, Cord, Selector  # noqa: E402
from chutes_core.validator.domain.keytext import format_key, hash_secret, new_secret  # noqa: E402
from chutes_core.validator.domain.launches import Launch, LaunchState  # noqa: E402
from chutes_core.validator.domain.money import Entry, Posting, user_credit  # noqa: E402
from chutes_core.validator.launches.vault import Vault  # noqa: E402
from chutes_core.validator.store.database import Store  # noqa: E402
from chutes_core.wire.lease import Lease  # noqa: E402
from scripts.localnet import HOTKEY, write_wallet  # noqa: E402
from tests.bench.sealed_origin import Instance  # noqa: E402
from tests.bench.watching import descendants, listeners, sockets_of  # noqa: E402

CREDIT_RAO = 10**17
START_TIMEOUT_S = 120.0
LEASE_BLOCKS = 150_000
SLUG = "bench-echo"
OPENING = (
    LaunchState.LISTENING,
    LaunchState.CHALLENGED,
    LaunchState.VERIFIED,
    LaunchState.STARTING,
    LaunchState.ACTIVE,
)


@dataclass(frozen=True)
class Filled:
    """What the store was filled with."""

    user_id: str
    api_key: str
    chute_id: str
    credit_rao: int


def fill(folder: Path, instances: Sequence[Instance], *, concurrency: int) -> Filled:
    """Make a store with a rich user, a chute and an active launch for each instance."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "validator.sqlite")
    try:
        with store.transaction(durable=True):
            filled = _people(store)
            chute = _chute(filled, len(instances), concurrency)
            store.chutes.save(chute)
            vault = Vault.open(folder / "vault.key")
            for number, instance in enumerate(instances):
                _launch(store, vault, chute, instance, number)
    finally:
        store.close()
    return filled


def _people(store: Store) -> Filled:
    now_s = int(time.time())
    user_id, key_id, secret = ids.new_id(), ids.new_id(), new_secret()
    store.accounts.create(
        lambda number: Account(
            user_id=user_id,
            number=number,
            username="bench",
            hotkey_ss58=Keypair.create_from_uri("//Bench//hotkey").ss58_address,
            coldkey_ss58=Keypair.create_from_uri("//Bench").ss58_address,
            payment_address=Keypair.create_from_uri("//Bench//pay").ss58_address,
            deposit_address=Keypair.create_from_uri("//Bench//deposit").ss58_address,
            fingerprint_sha256="0" * 64,
            created_at_s=now_s,
        )
    )
    store.keys.insert(ApiKey(key_id, user_id, "bench", hash_secret(secret), True, (), now_s))
    postings = (Posting(user_credit(user_id), CREDIT_RAO), Posting("bench", -CREDIT_RAO))
    store.ledger.apply(Entry("bench:credit", "bench", now_s, postings))
    return Filled(user_id, format_key(key_id, user_id, secret), "", CREDIT_RAO)


def _chute(filled: Filled, instances: int, concurrency: int) -> Chute:
    now_s = int(time.time())
    cords = tuple(
        Cord(name, f"/{name}", "POST", f"/api/{name}", "POST", stream=name == "tokens")
        for name in ("echo", "tokens", "late")
    )
    return Chute(
        chute_id=ids.new_id(),
        version=ids.new_id(),
        user_id=filled.user_id,
        username="bench",
        name="echo",
        slug=SLUG,
        tagline="",
        readme="",
        public=False,
        standard_template=None,
        image_id=ids.new_id(),
        filename="echo.py",
        ref_str="echo:chute",
        code="",
        selector=Selector(),
        cords=cords,
        concurrency=concurrency,
        max_instances=instances,
        scaling_threshold_percent=100,
        shutdown_after_s=10**6,
        created_at_s=now_s,
        updated_at_s=now_s,
    )


def _launch(store: Store, vault: Vault, chute: Chute, instance: Instance, number: int) -> None:
    now_s = int(time.time())
    miner = Keypair.create_from_uri("//Validator2//hotkey")  # a neuron of the devnet's genesis
    launch_id, gpu = instance.launch_id, f"GPU-bench-{number}"
    launch = Launch(
        launch_id=launch_id,
        chute_id=chute.chute_id,
        version=chute.version,
        image_id=chute.image_id,
        miner_hotkey=miner.ss58_address,
        miner_coldkey=Keypair.create_from_uri("//Validator2").ss58_address,
        registered_at_block=0,
        node_id="bench",
        gpu_uuids=(gpu,),
        gpu_class="h100_sxm",
        relay_host="127.0.0.1",
        relay_port=instance.port,
        profile="test",
        stand_in=True,
        requested_at_s=now_s,
        deadline_s=now_s + 3600,
    )
    sealed = [
        vault.seal(launch_id, kind, secret)
        for kind, secret in (("key", bytes(32)), ("ticket", instance.ticket))
    ]
    store.launches.insert(launch, *sealed)
    store.launches.set_root(launch_id, vault.seal(launch_id, "root", instance.root))
    state = LaunchState.REQUESTED
    for following in OPENING:
        active = {"active_at_s": now_s} if following is LaunchState.ACTIVE else {}
        store.launches.advance(launch_id, state, following, **active)
        state = following
    lease = Lease.sign(
        miner,
        gpu_uuid=gpu,
        validator_hotkey=Keypair.create_from_uri("//Validator1//hotkey").ss58_address,
        from_block=0,
        to_block=LEASE_BLOCKS,
    )
    store.leases.upsert(lease)


class Lives:
    """The validator, one life after the other, on one port and one folder.

    Args:
        chain: running.
        folder: holds wallets, data and the log.
        extra: more settings of the validator, without their prefix.
        watched: whether the probe notes lags and blocking calls.
    """

    def __init__(
        self,
        chain: DevnetProcess,
        folder: Path,
        extra: dict[str, str] | None = None,
        *,
        watched: bool = True,
    ) -> None:
        self._watched = watched
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "validator.log"
        self.pid = 0
        self._door = _held_port()
        self.port: int = self._door.getsockname()[1]
        self.probe = f"chutes-probe-{ids.new_id()}"
        self._ready = folder / "ready.json"
        coldkey, hotkey = (
            Keypair.create_from_uri(uri) for uri in ("//Validator1", "//Validator1//hotkey")
        )
        write_wallet(folder / "wallets", "validator", coldkey, hotkey, with_coldkey=False)
        settings = {
            "WALLET_PATH": str(folder / "wallets"),
            "WALLET_NAME": "validator",
            "HOTKEY": HOTKEY,
            "CHAIN_URL": chain.url,
            "NETUID": str(chain.netuid),
            "DATA_DIR": str(self.data),
            "READY_FILE": str(self._ready),
            "PORT": str(self.port),
            "RUNTIME": "process",
            "PROFILE": "test",
            "PAYMENT_TREASURY": Keypair.create_from_uri("//Treasury//payment").ss58_address,
            "DEPOSIT_TREASURY": Keypair.create_from_uri("//Treasury//deposit").ss58_address,
            "LIGHT_SECONDS": "0",
            "ROUND_ONE_IN": "0",
            "CALLS_PER_SECOND": "1000000",
            "CALLS_BURST": "1000000",
            **(extra or {}),
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CHUTES_")}
        own = {f"CHUTES_VALIDATOR_{name}": value for name, value in settings.items()}
        cache = {"BITTENSOR_RUNTIME_CACHE_DIR": str(folder / "cache")}
        self._environ = {**kept, **cache, **own, "PYTHONPATH": str(ROOT)}
        self._parent: asyncio.subprocess.Process | None = None

    async def open(self, core: int | None = None) -> None:
        """Start the parent; it and its lives have one core only, if it is named."""
        with self.log.open("ab") as log:
            self._parent = await asyncio.create_subprocess_exec(
                *(sys.executable, str(ROOT / "tests/bench/lived_validator.py"), self.probe),
                "watched" if self._watched else "unwatched",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environ,
                cwd=ROOT,
            )
        assert await self._line() == "ready"
        if core is not None:
            os.sched_setaffinity(self._parent.pid, {core})

    async def begin(self) -> int:
        """Fork a life; it may not serve yet."""
        assert self._parent is not None
        assert self._parent.stdin is not None
        self._ready.unlink(missing_ok=True)
        self._parent.stdin.write(b"live\n")
        self.pid = int(await self._line())
        return self.pid

    async def serving(self) -> None:
        """Wait until the life serves."""
        async with _Limit(START_TIMEOUT_S) as limit:
            while not self._ready.exists():
                limit.check("the validator to serve", self.log)
                assert _alive(self.pid), self.log.read_text()[-3000:]
                await asyncio.sleep(0.01)

    def victims(self) -> list[int]:
        """Return the life, and its children that listen on the public port (its workers)."""
        doors = listeners(self.port)
        workers = [pid for pid in descendants(self.pid) if doors & sockets_of(pid)]
        return [self.pid, *workers]

    async def kill(self) -> None:
        """End the life at once (SIGKILL); its orphans with it, as a power cut would."""
        orphans = descendants(self.pid)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        await self._ended()
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def stop(self) -> int:
        """Let the life end in order; return its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return await self._ended()

    async def close(self) -> None:
        """End the parent, and a life that is left."""
        self._door.close()
        if self._parent is None:
            return
        if self.pid:
            await self.kill()
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        await self._parent.wait()

    async def _ended(self) -> int:
        word, status = (await self._line()).split()
        assert word == "ended"
        self.pid = 0
        return int(status)

    async def _line(self) -> str:
        assert self._parent is not None
        assert self._parent.stdout is not None
        line = (await self._parent.stdout.readline()).decode().strip()
        assert line, "the validator's parent ended: " + self.log.read_text()[-3000:]
        return line


class _Limit:
    """A deadline for waits that poll."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    async def __aenter__(self) -> "_Limit":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def check(self, what: str, log: Path) -> None:
        if time.monotonic() > self._until:
            raise TimeoutError(f"waited too long for {what}; {log}: {log.read_text()[-3000:]}")


def _held_port() -> socket.socket:
    """Return a socket that keeps a port for the lives: bound, but not listening."""
    door = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        door.setsockopt(socket.SOL_SOCKET, option, 1)
    door.bind(("127.0.0.1", 0))
    return door


def _alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _parent() -> None:
    """Fork a validator for each line on standard input, until it ends."""
    from neurons import validator
    from tests.bench import build_stand_in, probe

    probe.install(sys.argv[1], watched=sys.argv[2] == "watched")
    build_stand_in.install()
    print("ready", flush=True)
    for _ in sys.stdin:
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(tell)
            os.read(told, 1)  # its process id is printed before anything of its own
            os.close(told)
            status = 1
            try:
                os.dup2(2, 1)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                validator.main()
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(told)
        print(pid, flush=True)
        os.close(tell)
        _, ended = os.waitpid(pid, 0)
        print("ended", os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    _parent()
