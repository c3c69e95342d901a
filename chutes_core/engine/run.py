"""Instances as hardened containers: started, found again, read and removed.

Path: miner/runtime/docker -> here -> the engine. A container has no capability, no way to new
privileges, a read-only root, memory without swap, its own user, and bounds on processes, CPU, open
files, temporary space and log. Invariants: what cannot be started leaves no container behind; a
container of ours is known by its labels alone; every error is a typed one (`failures`).

Sync; the miner calls it from threads.
"""

import hashlib
import re
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from docker import DockerClient
from docker.models.containers import Container as EngineContainer
from docker.types import LogConfig, Mount, Ulimit

from chutes_core.base.errors import ChutesError, Conflict, Invalid, NotFound
from chutes_core.engine.failures import explained
from chutes_core.engine.gpu import device_requests
from chutes_core.engine.networks import OWNER_LABEL, Network, connect, disconnect

EngineClient = DockerClient  # so that callers need not import the SDK
LAUNCH_LABEL = "chutes.launch"
STAND_BY_PREFIX = "standby-"
"""Begins what stands in the stead of a launch id while a container waits for its launch."""
EGRESS_LABEL = "chutes.egress"
PYTHON_LABEL = "chutes.python"
USER_ID = 10001
HOME = "/home/chute"
CACHE = "/cache"
TMP = "/tmp"  # noqa: S108 - a tmpfs inside the container
_MIB = 1024 * 1024
LOG_BYTES, LOG_FILES = 4 * _MIB, 2
_NAME = re.compile(r"[^a-zA-Z0-9_.-]")


@dataclass(frozen=True)
class Limits:
    """Bounds of one container; temporary space and shared memory count as memory too."""

    memory_bytes: int
    nano_cpus: int
    pids: int = 1024
    shm_bytes: int = 1024 * _MIB
    tmp_bytes: int = 2048 * _MIB
    home_bytes: int = 2048 * _MIB
    open_files: int = 16384


@dataclass(frozen=True)
class ContainerSpec:
    """One instance to run.

    Args:
        launch_id: names it.
        owner: the miner's hotkey.
        image: engine id or name.
        entrypoint: what is run, in place of the image's own entrypoint and command.
        environment: in full.
        inside: the network through which the relay reaches it.
        outside: the network with a way out, or None for none from the start.
        egress: a note for whoever finds the container again.
        gpu_uuids: devices; empty for none.
        read_only_mounts: host directory -> place inside.
        writable_mounts: the same, of folders that are this container's to write to.
        limits: bounds.
        dns: resolvers; without a way out they lead nowhere.
        waits: it gets a line on its stdin later (engine/handover); at the end of that it ends.
    """

    launch_id: str
    owner: str
    image: str
    entrypoint: Sequence[str]
    environment: Mapping[str, str]
    inside: Network
    outside: Network | None
    egress: str
    limits: Limits
    gpu_uuids: Sequence[str] = ()
    read_only_mounts: Mapping[str, str] = field(default_factory=dict)
    writable_mounts: Mapping[str, str] = field(default_factory=dict)
    dns: Sequence[str] = ()
    waits: bool = False


@dataclass(frozen=True)
class Seen:
    """One container of a miner as the engine lists it.

    ``exit_code`` is None while it runs; ``networks`` maps names to IPv4 addresses ("" when ended).
    """

    container_id: str
    launch_id: str
    exit_code: int | None
    out_of_memory: bool
    egress: str
    networks: Mapping[str, str]


class Containers:
    """The containers of one miner on one engine."""

    def __init__(self, client: DockerClient, owner: str) -> None:
        self._client = client
        self._owner = owner

    def start(self, spec: ContainerSpec) -> str:
        """Create and start a container; return its id.

        Raises:
            ChutesError: the engine refuses; nothing is left behind.
        """
        container_id = self._create(spec)
        with self._removed_on_failure(container_id):
            if spec.outside is not None:
                connect(self._client, spec.outside, container_id)
            with explained("start a container"):
                self._client.api.start(container_id)
        return container_id

    def all(self) -> tuple[Seen, ...]:
        """Return every container of this miner, ended ones too.

        Raises:
            ChutesError: the engine does not answer.
        """
        with explained("list containers"):
            listed = self._client.api.containers(
                all=True, filters={"label": [f"{OWNER_LABEL}={self._owner}", LAUNCH_LABEL]}
            )
        seen = []
        for entry in listed:
            try:
                with explained("look at a container"):
                    seen.append(_seen(self._client.api.inspect_container(entry["Id"])))
            except NotFound:  # it went between the two calls
                continue
        return tuple(seen)

    def find(self, launch_id: str) -> Seen | None:
        """Return this miner's container of a launch, or None.

        Raises:
            ChutesError: the engine does not answer.
        """
        return next((seen for seen in self.all() if seen.launch_id == launch_id), None)

    def interpreter(self, image: str) -> str:
        """Return the Python of an image that has the runner, as its builder labelled it.

        Raises:
            ChutesError: ``image_without_runner``, or the engine's refusal.
        """
        python = str((self._config(image).get("Labels") or {}).get(PYTHON_LABEL, ""))
        if not python.startswith("/"):
            raise Invalid(
                "image_without_runner",
                f"image {image} has no label {PYTHON_LABEL}: no validator has built it",
            )
        return python

    def defines(self, image: str, variable: str) -> bool:
        """Tell whether an image sets an environment variable itself.

        Raises:
            ChutesError: the engine's refusal.
        """
        return any(
            one.partition("=")[0] == variable for one in self._config(image).get("Env") or ()
        )

    def output(self, container_id: str, *, max_lines: int) -> str:
        """Return the last lines of what a container wrote.

        Raises:
            ChutesError: the engine does not answer, or has no such container.
        """
        with explained("read a container's log"):
            raw: bytes = self._client.api.logs(
                container_id, stdout=True, stderr=True, tail=max_lines
            )
        return raw.decode(errors="replace")

    def stdout_head(self, container_id: str) -> str:
        """Return what it wrote to stdout: the runner's ready line, and nothing else.

        Raises:
            ChutesError: the engine does not answer, or has no such container.
        """
        with explained("read a container's log"):
            raw: bytes = self._client.api.logs(container_id, stdout=True, stderr=False)
        return raw.decode(errors="replace")

    def stop(self, container_id: str, grace_s: float) -> None:
        """SIGTERM, wait, SIGKILL. A container that has gone or ended is no error.

        Raises:
            ChutesError: the engine does not answer.
        """
        try:
            with explained("stop a container"):
                self._client.api.stop(container_id, timeout=max(0, round(grace_s)))
        except NotFound:
            return

    def remove(self, container_id: str) -> None:
        """Remove a container and its volumes, running or not; one that has gone is no error.

        Raises:
            ChutesError: the engine does not answer.
        """
        try:
            with explained("remove a container"):
                self._client.api.remove_container(container_id, force=True, v=True)
        except NotFound:
            return
        except Conflict as error:
            if "already in progress" not in error.message:
                raise

    def cut(self, seen: Seen, outside: Network) -> bool:
        """Take a container's way out; True where it had one.

        Raises:
            ChutesError: the engine refuses.
        """
        if outside.name not in seen.networks:
            return False
        disconnect(self._client, outside, seen.container_id)
        return True

    def _config(self, image: str) -> dict[str, Any]:
        with explained("look at an image"):
            found: dict[str, Any] = self._client.api.inspect_image(image)["Config"]
        return found

    def _create(self, spec: ContainerSpec) -> str:
        api = self._client.api
        try:
            with explained("create a container"):
                created = api.create_container(
                    spec.image,
                    name=name_of(spec.owner, spec.launch_id),
                    entrypoint=list(spec.entrypoint),
                    command=[],
                    stdin_open=spec.waits,
                    environment=dict(spec.environment),
                    user=f"{USER_ID}:{USER_ID}",
                    working_dir=HOME,
                    labels={
                        OWNER_LABEL: spec.owner,
                        LAUNCH_LABEL: spec.launch_id,
                        EGRESS_LABEL: spec.egress,
                    },
                    healthcheck={"test": ["NONE"]},
                    host_config=api.create_host_config(**host_options(spec)),
                    networking_config=api.create_networking_config(
                        {spec.inside.name: api.create_endpoint_config()}
                    ),
                )
        except ChutesError as error:
            # The engine may have made it and then failed: a name is taken back as well as an id.
            if not isinstance(error, Conflict):
                self._forget_name(spec)
            raise
        return str(created["Id"])

    def _forget_name(self, spec: ContainerSpec) -> None:
        with suppress(ChutesError):  # the engine is gone; the next `all` shows what it kept
            self.remove(name_of(spec.owner, spec.launch_id))

    @contextmanager
    def _removed_on_failure(self, container_id: str) -> Iterator[None]:
        try:
            yield
        except ChutesError:
            with suppress(ChutesError):  # the first error tells more; a reconcile removes the rest
                self.remove(container_id)
            raise


def host_options(spec: ContainerSpec) -> dict[str, object]:
    """Return the hardening of a container, as arguments of the SDK's HostConfig.

    Open files are bounded by this process's own hard limit too, which an engine on the same host
    has as well and may not exceed.
    """
    limits = spec.limits
    files = min(limits.open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    owned = f"uid={USER_ID},gid={USER_ID}"
    return {
        "network_mode": spec.inside.name,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": True,
        "tmpfs": {
            TMP: f"rw,nosuid,nodev,exec,size={limits.tmp_bytes},mode=1777,{owned}",
            HOME: f"rw,nosuid,nodev,exec,size={limits.home_bytes},mode=0700,{owned}",
        },
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "nano_cpus": limits.nano_cpus,
        "pids_limit": limits.pids,
        "shm_size": limits.shm_bytes,
        "ulimits": [
            Ulimit(name="nofile", soft=files, hard=files),
            Ulimit(name="core", soft=0, hard=0),
        ],
        "init": True,
        "ipc_mode": "private",
        "sysctls": {"net.ipv6.conf.all.disable_ipv6": "1"},
        "dns": list(spec.dns) or ["192.0.2.1"],  # TEST-NET-1: nowhere; else the host's are taken
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(
            type=LogConfig.types.JSON,
            config={"max-size": str(LOG_BYTES), "max-file": str(LOG_FILES)},
        ),
        "mounts": [*_mounts(spec.read_only_mounts, True), *_mounts(spec.writable_mounts, False)],
        "device_requests": device_requests(spec.gpu_uuids),
    }


def _mounts(places: Mapping[str, str], read_only: bool) -> list[Mount]:
    return [
        Mount(target, source, type="bind", read_only=read_only) for source, target in places.items()
    ]


def name_of(owner: str, launch_id: str) -> str:
    """Return a name that no other miner on this engine takes, even for the same launch id."""
    mark = hashlib.sha256(owner.encode()).hexdigest()[:10]
    return f"chutes-{mark}-{_NAME.sub('-', launch_id)}"


def _launch_of(container: EngineContainer) -> str:
    """Return the launch id; of what stood by, its name tells since the handing over."""
    label = str(container.attrs["Config"]["Labels"][LAUNCH_LABEL])
    if not label.startswith(STAND_BY_PREFIX):
        return label
    return str(container.attrs["Name"]).lstrip("/").split("-", 2)[2]


def _seen(attrs: Mapping[str, object]) -> Seen:
    container = EngineContainer(attrs=dict(attrs))
    state, labels = container.attrs["State"], container.attrs["Config"]["Labels"]
    running = state["Status"] in ("created", "running", "paused", "restarting", "removing")
    networks = container.attrs["NetworkSettings"]["Networks"] or {}
    return Seen(
        container_id=str(container.attrs["Id"]),
        launch_id=_launch_of(container),
        exit_code=None if running else int(state["ExitCode"]),
        out_of_memory=bool(state.get("OOMKilled")),
        egress=labels.get(EGRESS_LABEL, ""),
        networks={name: str(one.get("IPAddress") or "") for name, one in networks.items()},
    )
