"""The validator's settings: CHUTES_VALIDATOR_* variables, or options of neurons/validator.py.

Invariant: frozen; money and prices are decimal strings here and integers everywhere else.
"""

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chutes_core.base.errors import Invalid
from chutes_core.base.settings import RoleSettings
from chutes_core.base.units import Rao, parse_tao
from chutes_core.validator.catalog.builder import DockerBuildLimits


class ValidatorSettings(RoleSettings):
    """Everything that an operator of a validator decides."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_ignore_empty=True, env_prefix="CHUTES_VALIDATOR_"
    )

    wallet_path: Path = Path("~/.bittensor/wallets")
    wallet_name: str = "default"
    hotkey: str = "default"
    allow_coldkey: bool = Field(default=False, description="devnet only")
    chain_url: str = "wss://entrypoint-finney.opentensor.ai:443"
    archive_url: str | None = Field(
        default=None, description="node of the same chain that keeps old state"
    )
    netuid: int = 64
    data_dir: Path = Path("~/.chutes/validator")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    public_url: str | None = Field(default=None, description="committed on chain; default: bind")
    domain: str = Field(default="", description="{slug}.{domain} serves a chute")
    data_plane: Literal["plane", "reference"] = Field(
        default="plane", description="who serves the port; reference: the same on uvicorn, slower"
    )
    gateway_workers: int = Field(
        default=1, ge=1, le=64, description="processes on the port; 1: within the main process"
    )
    tls_certificate: Path | None = Field(default=None, description="PEM chain; TLS ends here")
    tls_key: Path | None = Field(default=None, description="PEM key of tls_certificate")
    behind_proxy: bool = Field(default=False, description="TLS ends in front of this process")
    proxy_addresses: str = Field(
        default="127.0.0.1,::1", description="with behind_proxy: whose X-Forwarded-For is believed"
    )
    max_connections: int = Field(default=4096, ge=16, description="open at once")
    max_connections_per_address: int = Field(
        default=1024, ge=1, description="open at once from one address; not behind a proxy"
    )
    runtime: Literal["process", "docker"] = "docker"
    docker_host: str = Field(default="", description="engine that builds; default: DOCKER_HOST")
    build_slots: int = Field(default=2, ge=1, le=16, description="images built at once")
    build_seconds: float = Field(default=3600.0, gt=0, description="longest build of one image")
    build_memory_bytes: int = Field(default=8 * 1024**3, ge=64 * 1024**2)
    build_cpus: float = Field(default=2.0, gt=0)
    build_processes: int = Field(default=2048, ge=16)
    build_log_lines: int = Field(default=50_000, ge=100)
    build_min_free_bytes: int = Field(default=5 * 1024**3, ge=0, description="left on the disk")
    image_max_bytes: int = Field(default=40 * 1024**3, ge=1024**2)
    build_unguarded: bool = Field(
        default=False, description="build although private addresses cannot be shut off"
    )
    build_allowed: str = Field(
        default="", description="private ranges builds may reach, e.g. a mirror"
    )
    registry: str = Field(
        default="", description="host[:port][/path] of an OCI registry that images go through"
    )
    registry_user: str = Field(default="", description="pushes; default: passes signed here")
    registry_password: SecretStr = Field(default=SecretStr(""), description="of registry_user")
    profile: Literal["test", "periodic", "admission"] = Field(
        default="periodic", description="of launches; test (devnet only) goes for all challenges"
    )
    admission_max_age_s: int = Field(
        default=24 * 3600, ge=0, description="how long a node attestation counts; 0: not needed"
    )
    periodic_seconds: int = Field(
        default=4 * 3600, ge=10, description="an idle GPU is challenged in full so often"
    )
    light_seconds: int = Field(
        default=3600, ge=0, description="an instance is challenged again so often; 0: never"
    )
    round_one_in: int = Field(
        default=300, ge=0, description="a miner's round comes every so many blocks; 0: never"
    )
    failed_block_s: int = Field(
        default=3600, ge=0, description="a GPU that failed a challenge is refused for so long"
    )
    payment_treasury: str = Field(description="sr25519 public key (ss58) of the payment treasury")
    deposit_treasury: str = Field(description="sr25519 public key (ss58) of the deposit treasury")
    require_developer_deposit: bool = Field(
        default=False, description="only developers (by deposit or link) build and deploy"
    )
    developer_deposit: str = Field(default="1", description="TAO that make a developer")
    deposit_lock_s: int = Field(
        default=604_800, ge=0, description="lock of a deposit; below seven days on a devnet only"
    )
    min_coldkey: str = Field(
        default="0.1", description="TAO that the coldkey should have for the hotkey's fees"
    )
    signer_spool: Path | None = Field(default=None, description="folder shared with the signer")
    signer_uid: int | None = Field(default=None, ge=0, description="user id of the signer")
    tao_usd: str = Field(default="400", description="price of one TAO in US dollars")
    deploy_fee: bool = Field(default=False, description="a new chute costs three hours of a GPU")
    max_call_s: int = Field(default=600, ge=1, le=7200)
    job_wait_s: int = Field(
        default=3600, ge=1, description="a job's run waits so long for an instance"
    )
    job_files_max_bytes: int = Field(
        default=1024**3, ge=1024, description="what the files of one run may have"
    )
    job_kept_s: int = Field(
        default=7 * 24 * 3600, ge=60, description="an ended run and its files are kept so long"
    )
    cold_wait_s: int = Field(default=60, ge=0, le=600)
    poll_seconds: float = Field(default=6.0, gt=0)
    renew_seconds: float = Field(default=60.0, gt=0)
    lease_renewal_s: int = Field(default=900, ge=10)
    lease_blocks: int = Field(default=300, ge=10)
    rollover_grace_s: int = Field(
        default=120,
        ge=0,
        description="a new version without a free GPU waits so long for an old instance's",
    )
    calls_per_second: int = Field(default=50, ge=1, description="rate limit of one key")
    free_calls_per_day: int = Field(
        default=10_000, ge=0, description="of an account whose calls are free; further ones cost"
    )
    calls_burst: int = Field(default=200, ge=1, description="calls of one key at once")
    max_body_bytes: int = Field(
        default=20 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024, description="of one call"
    )
    access_log: bool = Field(
        default=False, description="one line for each call; no key, user or address is in it"
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="GET /metrics on 127.0.0.1, for Prometheus; 0: none"
    )
    ready_file: Path | None = Field(default=None, description="JSON written once it serves")
    log_level: str = "INFO"
    json_logs: bool = False

    @property
    def build_limits(self) -> DockerBuildLimits:
        """Return what one image may use while it is built."""
        return DockerBuildLimits(
            time_s=self.build_seconds,
            log_lines=self.build_log_lines,
            memory_bytes=self.build_memory_bytes,
            cpus=self.build_cpus,
            processes=self.build_processes,
            min_free_bytes=self.build_min_free_bytes,
            image_bytes=self.image_max_bytes,
        )

    @property
    def build_allowed_ranges(self) -> tuple[str, ...]:
        """Return the private IPv4 ranges that builds may reach."""
        ranges = filter(None, (part.strip() for part in self.build_allowed.split(",")))
        return tuple(str(ipaddress.IPv4Network(part)) for part in ranges)

    @property
    def tao_usd_micros(self) -> int:
        """Return the price of one TAO in millionths of a US dollar."""
        rao_like: Rao = parse_tao(self.tao_usd)  # nine decimals, exactly
        micros = rao_like // 1_000
        if micros < 1:
            raise Invalid("bad_tao_usd", "the TAO price is zero", hint="e.g. tao_usd=400")
        return micros

    def profile_of(self, purpose: str) -> str:
        """Return the profile for admission, periodic or light: test where launches are test."""
        return "test" if self.profile == "test" else purpose

    @property
    def developer_deposit_rao(self) -> Rao:
        """Return what makes a developer, in rao."""
        return parse_tao(self.developer_deposit)

    def check_binding(self) -> None:
        """Refuse to serve plain HTTP to the world, and half of a TLS configuration.

        Raises:
            Invalid: ``insecure_bind``, ``bad_tls`` or ``bad_workers``.
        """
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise Invalid(
                "bad_tls",
                "only one of tls_certificate and tls_key is set",
                hint="set both, or none where TLS ends in front of this process",
            )
        if self.tls_certificate is not None and self.data_plane == "reference":
            raise Invalid(
                "bad_tls",
                "the reference server speaks no TLS",
                hint="set data_plane=plane, or end TLS in front of this process",
            )
        if self.gateway_workers > 1 and self.data_plane == "reference":
            raise Invalid(
                "bad_workers",
                "the reference server runs in the main process alone",
                hint="set data_plane=plane, or gateway_workers=1",
            )
        loopback = self.host == "localhost" or _is_loopback(self.host)
        if not loopback and not self.behind_proxy and self.tls_certificate is None:
            raise Invalid(
                "insecure_bind",
                f"{self.host} is reachable from outside and this server speaks plain HTTP",
                hint="set tls_certificate and tls_key, or behind_proxy where a TLS proxy stands",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
