"""Settings of the miner neuron: one frozen object, read once by neurons/miner.py.

Invariant: text such as lists and amounts is parsed here, once; the rest of the room only sees typed
values. Protocol constants and bounds are no settings; they stand beside the code they bound.
"""

import ipaddress
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chutes_core.base.errors import Invalid
from chutes_core.base.gpus import GPU_CLASSES
from chutes_core.base.settings import RoleSettings
from chutes_core.base.units import Rao, parse_tao

_ENV_PREFIX = "CHUTES_MINER_"
_MAX_GPUS = 64


@dataclass(frozen=True)
class DeclaredGpus:
    """Stand-in GPUs that an operator declares: how many of which class (devnet only)."""

    gpu_class: str
    count: int


class MinerSettings(RoleSettings):
    """Everything that an operator may choose; see docs/miner.md."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_ignore_empty=True, env_prefix=_ENV_PREFIX
    )

    wallet_path: Path = Path("~/.bittensor/wallets")
    wallet_name: str = "default"
    hotkey: str = "default"
    allow_coldkey: bool = False
    chain_url: str = "wss://entrypoint-finney.opentensor.ai:443"
    netuid: int = Field(default=64, ge=0, le=65535)
    data_dir: Path = Path("~/.chutes/miner")
    host: str = "0.0.0.0"  # noqa: S104 - a miner is called from outside; only signed calls answer
    port: int = Field(default=8091, ge=0, le=65535)
    external_ip: str = ""
    external_port: int = Field(default=0, ge=0, le=65535)
    relay_port: int = Field(default=8092, ge=0, le=65535)
    runtime: Literal["docker", "process"] = "docker"
    docker_host: str = ""
    dns: str = "1.1.1.1,9.9.9.9"
    graval_home: Path | None = None
    instance_memory_mb: int = Field(default=0, ge=0)
    instance_shm_mb: int = Field(default=0, ge=0)
    instance_tmp_mb: int = Field(default=0, ge=0)
    instance_cpus: float = Field(default=0, ge=0, le=1024)
    instance_pids: int = Field(default=1024, ge=64, le=100_000)
    registry: str = Field(
        default="", description="host[:port] of a registry: may be private, gets these credentials"
    )
    registry_user: str = ""
    registry_password: SecretStr = SecretStr("")
    stand_bys: int = Field(
        default=1, ge=0, le=64, description="instances held ready on idle GPUs; 0: none"
    )
    cache_gb: int = Field(
        default=100,
        ge=0,
        le=1_000_000,
        description="GB of models that chutes find again at their next launch here; 0: none",
    )
    cache_dir: Path | None = Field(
        default=None, description="where the model cache lies; data_dir unless set"
    )
    keep_images: int = Field(default=20, ge=1, le=10_000)
    declare_gpu: str = ""
    validators: str = "auto"
    min_validator_stake_tao: str = "0"
    lease_blocks: int = Field(default=300, ge=4, le=100_000)
    min_run_seconds: float = Field(
        default=600.0,
        ge=0,
        description="how long an instance on a lent GPU runs before the GPU may go back",
    )
    drain_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="how long calls may go on after SIGTERM"
    )
    operator_host: str = Field(
        default="127.0.0.1", description="where /metrics and /status listen, behind a token"
    )
    operator_port: int = Field(
        default=0, ge=0, le=65535, description="its port; 0 takes any, and keeps it"
    )
    poll_seconds: float = Field(default=6.0, gt=0, le=600)
    gpu_python: str = ""
    hourly_cost_usd_micros: int = Field(default=0, ge=0)
    log_level: str = "INFO"
    json_logs: bool = False
    wait_registered: bool = False
    ready_file: Path | None = None

    @property
    def data_path(self) -> Path:
        """Return the data directory with ``~`` resolved."""
        return self.data_dir.expanduser().resolve()

    @property
    def cache_path(self) -> Path:
        """Return the directory of the model cache, which holds nothing else."""
        place = self.cache_dir.expanduser().resolve() if self.cache_dir else self.data_path
        return place / "model-cache"

    @property
    def wallet_dir(self) -> Path:
        """Return the wallet directory with ``~`` resolved."""
        return self.wallet_path.expanduser().resolve()

    @property
    def min_stake_rao(self) -> Rao:
        """Return the least stake of a validator that this miner serves."""
        return parse_tao(self.min_validator_stake_tao)

    @property
    def chosen_validators(self) -> frozenset[str] | None:
        """Return the hotkeys to serve, or None for every permitted validator."""
        if self.validators.strip() == "auto":
            return None
        return frozenset(part.strip() for part in self.validators.split(",") if part.strip())

    @property
    def resolvers(self) -> tuple[str, ...]:
        """Return the IPv4 addresses of the resolvers of instances that may dial out.

        Raises:
            Invalid: ``bad_dns``.
        """
        named = tuple(part.strip() for part in self.dns.split(",") if part.strip())
        try:
            return tuple(str(ipaddress.IPv4Address(text)) for text in named)
        except ValueError as error:
            raise Invalid(
                "bad_dns", f"dns: {error}", hint="IPv4 addresses, e.g. 1.1.1.1"
            ) from error

    @property
    def graval_path(self) -> Path | None:
        """Return the directory with the provers' Python, or None.

        Raises:
            Invalid: ``bad_graval_home``.
        """
        if self.graval_home is None:
            return None
        path = self.graval_home.expanduser().resolve()
        if not (path / "bin" / "python3").exists():
            raise Invalid(
                "bad_graval_home",
                f"{path} has no bin/python3",
                hint="a prover bundle, made by scripts/build_prover_bundle.py",
            )
        return path

    @property
    def prover_python(self) -> str:
        """Return what runs the provers outside of containers: as set, the bundle's, or our own.

        Raises:
            Invalid: ``bad_graval_home``.
        """
        if self.gpu_python:
            return self.gpu_python
        bundle = self.graval_path
        return sys.executable if bundle is None else str(bundle / "bin" / "python3")

    @property
    def declared_gpus(self) -> tuple[DeclaredGpus, ...]:
        """Return the stand-in GPUs that were declared.

        Raises:
            Invalid: ``bad_declare_gpu``.
        """
        return parse_declared(self.declare_gpu)


def parse_declared(text: str) -> tuple[DeclaredGpus, ...]:
    """Read ``h100_sxm:2,a100:1`` (a count of 1 may be left out).

    >>> parse_declared("h100_sxm:2,a100")
    (DeclaredGpus(gpu_class='h100_sxm', count=2), DeclaredGpus(gpu_class='a100', count=1))

    Raises:
        Invalid: ``bad_declare_gpu`` names the part that is wrong.
    """
    declared = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        gpu_class, _, count = part.partition(":")
        if gpu_class not in GPU_CLASSES or not (count or "1").isdigit() or count == "0":
            raise Invalid(
                "bad_declare_gpu",
                f"{part!r} declares no GPU",
                hint=f"short name and count, e.g. h100_sxm:1; names: {', '.join(GPU_CLASSES)}",
            )
        declared.append(DeclaredGpus(gpu_class, int(count or "1")))
    if sum(entry.count for entry in declared) > _MAX_GPUS:
        raise Invalid("bad_declare_gpu", f"more than {_MAX_GPUS} GPUs are declared")
    return tuple(declared)
