"""Settings of the signer: environment `CHUTES_SIGNER_…`. Invariant: no secret is a setting."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chutes_core.base.settings import RoleSettings


class SignerSettings(RoleSettings):
    """What the keeper of the deposit treasury decides."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_ignore_empty=True, env_prefix="CHUTES_SIGNER_"
    )

    chain_url: str = "wss://entrypoint-finney.opentensor.ai:443"
    archive_url: str | None = None
    spool: Path = Field(description="the folder that the validator's signer_spool names")
    validator_uid: int = Field(ge=0, description="user id of the validator's process")
    key_file: Path = Field(description="mnemonic or secret URI, mode 0600, owned by this user")
    data_dir: Path = Path("~/.chutes/signer")
    daily_cap: str = Field(description="TAO that it pays in 24 hours at most")
    poll_seconds: float = Field(default=6.0, gt=0)
    log_level: str = "INFO"
    json_logs: bool = False
