"""Settings of the devnet process: environment `CHUTES_DEVNET_…`, overridden by its options.

Invariant: another host than loopback is bound only when it is named.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chutes_core.base.settings import RoleSettings
from chutes_core.devnet.metadata import DEFAULT_METADATA


class DevnetSettings(RoleSettings):
    """How the chain is started.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        block_seconds: block time.
        tempo: blocks per epoch.
        metadata: file written by scripts/fetch_metadata.py.
        ready_file: written once the chain listens.
        foreign_genesis: leave out the devnet marker, for tests.
        validators: how many are registered at genesis.
        json_logs: log lines as JSON.
        dev_controls: answer the dev_ methods: blocks on demand, storage, time, faults.
        state: file that keeps the chain over a restart; in memory only when None.
    """

    model_config = SettingsConfigDict(env_prefix="CHUTES_DEVNET_")

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)
    block_seconds: float = Field(default=1.0, ge=0.05, le=60)
    tempo: int = Field(default=20, ge=1, le=65_535)
    metadata: Path = DEFAULT_METADATA
    ready_file: Path | None = None
    foreign_genesis: bool = False
    validators: int = Field(default=2, ge=0, le=64)
    json_logs: bool = False
    dev_controls: bool = False
    state: Path | None = None
