"""The developer's settings: the ini file of CHUTES_CONFIG_PATH, and what the environment overrides.

Format of shared/PUBLIC_API (CLI), so that the public client can read ours and we can read theirs.
Invariant: the file is written with mode 0600 from its first byte, since it holds a hotkey's seed;
neither the seed nor a key appears in a repr. CHUTES_API_URL and CHUTES_API_KEY win over the file.
"""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chutes_core.base.errors import Invalid

DEFAULT_PATH = "~/.chutes/config.ini"


@dataclass(frozen=True)
class ClientConfig:
    """Who calls, and which network."""

    api_url: str | None = None
    username: str | None = None
    user_id: str | None = None
    hotkey_seed: str | None = field(default=None, repr=False)
    hotkey_name: str | None = None
    hotkey_ss58: str | None = None
    payment_address: str | None = None
    api_key: str | None = field(default=None, repr=False)
    dev_url: str | None = None

    def require_api_url(self) -> str:
        """Return the API's address without a slash at its end.

        Raises:
            Invalid: ``no_api_url`` or ``bad_api_url``.
        """
        if not self.api_url:
            raise Invalid(
                "no_api_url",
                "no validator is configured",
                hint="set CHUTES_API_URL to the validator's address",
            )
        if not self.api_url.startswith(("http://", "https://")):
            raise Invalid(
                "bad_api_url",
                f"{self.api_url!r} is no http(s) address",
                hint="e.g. https://validator.example",
            )
        return self.api_url.rstrip("/")


_PLACES: dict[str, tuple[str, str]] = {
    "api_url": ("api", "base_url"),
    "username": ("auth", "username"),
    "user_id": ("auth", "user_id"),
    "hotkey_seed": ("auth", "hotkey_seed"),
    "hotkey_name": ("auth", "hotkey_name"),
    "hotkey_ss58": ("auth", "hotkey_ss58address"),
    "api_key": ("auth", "api_key"),
    "payment_address": ("payment", "address"),
}


def config_path(environ: Mapping[str, str]) -> Path:
    """Return where the ini file lies."""
    return Path(environ.get("CHUTES_CONFIG_PATH") or DEFAULT_PATH).expanduser()


def load_config(environ: Mapping[str, str] | None = None) -> ClientConfig:
    """Read the file, where there is one, and the environment.

    Raises:
        Invalid: ``bad_config`` where the file is no ini file.
    """
    environ = os.environ if environ is None else environ
    path = config_path(environ)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise Invalid(
            "bad_config",
            f"{path} cannot be read: {error}",
            hint="mend the ini file, or move it away and register again",
        ) from error
    values = {name: parser.get(*place, fallback=None) for name, place in _PLACES.items()}
    values["api_url"] = environ.get("CHUTES_API_URL") or values["api_url"]
    values["api_key"] = environ.get("CHUTES_API_KEY") or values["api_key"]
    return ClientConfig(**values, dev_url=environ.get("CHUTES_DEV_URL") or None)


def save_config(config: ClientConfig, path: Path) -> None:
    """Write the file anew, readable by its owner alone; other sections in it are kept."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path, encoding="utf-8")
    for name, (section, option) in _PLACES.items():
        value = getattr(config, name)
        if value is None:
            continue
        if not parser.has_section(section):
            parser.add_section(section)
        parser.set(section, option, value)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        parser.write(file)
    fresh.replace(path)
