"""`chutes doctor`: what is set up here, what is not, and what to do about it.

Invariant: nothing is changed and nothing secret is printed; a check that fails stops no other, and
the exit code is 1 where one has failed.
"""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import click

from chutes_core.base.errors import ChutesError
from chutes_core.base.version import VERSION
from chutes_core.cli.options import emit, json_option
from chutes_core.sdk import credentials
from chutes_core.sdk.client import ApiClient
from chutes_core.sdk.config import ClientConfig, config_path, load_config
from chutes_core.sdk.loader import load_chute

MIN_PYTHON = (3, 10)
MAX_SKEW_S = 30  # half of the 60 s within which a signed request must arrive
DOCKER_S = 10.0

State = Literal["ok", "note", "wrong"]
_MARKS: dict[State, str] = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


@dataclass(frozen=True)
class Check:
    """What one look found; ``hint`` says what to do."""

    name: str
    state: State
    found: str
    hint: str = ""


@click.command()
@click.argument("chute_ref", metavar="[MODULE:CHUTE]", required=False)
@json_option
def doctor(chute_ref: str | None, as_json: bool) -> int:
    """Check this machine's setup, the validator, your credentials, and a chute file."""
    checks = list(examine(chute_ref))
    wrong = sum(check.state == "wrong" for check in checks)
    document = {"ok": not wrong, "checks": [asdict(check) for check in checks]}
    emit(document, as_json=as_json, text="\n".join(_line(check) for check in checks))
    return 1 if wrong else 0


def examine(chute_ref: str | None) -> Iterator[Check]:
    """Yield each check's finding."""
    yield _python()
    config, finding = _config()
    yield finding
    if config is not None:
        yield from _validator(config)
        yield _key(config)
    yield _docker()
    if chute_ref is not None:
        yield _try("chute file", lambda: f"{load_chute(chute_ref).name} loads")


def _python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < MIN_PYTHON:
        return Check("python", "wrong", found, "install Python 3.10 or newer")
    return Check("python", "ok", f"{found}, chutes-core {VERSION}")


def _config() -> tuple[ClientConfig | None, Check]:
    path = config_path(os.environ)
    try:
        config = load_config()
    except ChutesError as error:
        return None, _failed("configuration", error)
    if not path.exists():
        hint = "chutes register --username …"
        return config, Check("configuration", "note", f"no {path}", hint)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        hint = f"it holds your hotkey's seed: chmod 600 {path}"
        return config, Check("configuration", "wrong", f"{path} is open to others", hint)
    return config, Check("configuration", "ok", f"{path}, account {config.username or 'unknown'}")


def _validator(config: ClientConfig) -> Iterator[Check]:
    try:
        with ApiClient(config.require_api_url(), None) as client:
            answer = client.send("GET", "/ping")
    except ChutesError as error:
        yield _failed("validator", error)
        return
    yield Check("validator", "ok", f"{config.api_url} answers")
    yield _clock(answer.headers.get("date"))
    if config.hotkey_seed or config.api_key:
        yield _try("account", lambda: _account(config))
    else:
        yield Check("account", "note", "no credentials here", "chutes register --username …")


def _clock(date: str | None) -> Check:
    if date is None:
        return Check("clock", "note", "the validator tells no time")
    skew_s = round(time.time() - parsedate_to_datetime(date).timestamp())
    if abs(skew_s) > MAX_SKEW_S:
        hint = "signed requests are refused beyond 60 s: set the clock (e.g. by NTP)"
        return Check("clock", "wrong", f"{skew_s:+d} s off the validator's", hint)
    return Check("clock", "ok", "within a few seconds of the validator's")


def _account(config: ClientConfig) -> str:
    with ApiClient(config.require_api_url(), credentials.for_management(config)) as client:
        account: dict[str, Any] = client.call("GET", "/users/me", purpose="me")
    return f"{account.get('username')}, balance {account.get('balance')}"


def _key(config: ClientConfig) -> Check:
    if config.api_key:
        return Check("API key", "ok", "kept here, for calls")
    hint = "chutes keys create --name laptop --admin --save"
    return Check("API key", "note", "none kept here; `chutes invoke` needs one", hint)


def _docker() -> Check:
    hint = "only `chutes build --local` needs it"
    if shutil.which("docker") is None:
        return Check("docker", "note", "not installed", hint)
    try:
        command = ["docker", "version", "--format", "{{.Server.Version}}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOCKER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return Check("docker", "note", "no engine answers", hint)
    return Check("docker", "ok", done.stdout.strip())


def _try(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except ChutesError as error:
        return _failed(name, error)


def _failed(name: str, error: ChutesError) -> Check:
    return Check(name, "wrong", f"{error.message} [{error.code}]", error.hint)


def _line(check: Check) -> str:
    line = f"{_MARKS[check.state]} {check.name}: {check.found}"
    return line if check.state == "ok" or not check.hint else f"{line}\n      -> {check.hint}"
