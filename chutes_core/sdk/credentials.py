"""How a client proves who it is: a hotkey's signature or an API key.

Invariant: no two signed requests of a process carry the same nonce, because the validator accepts
each signed text once and reads of one purpose differ in nothing else.
"""

from dataclasses import dataclass, field
from typing import Protocol

from bittensor_core import Keypair

from chutes_core.base.clock import Clock, SystemClock
from chutes_core.base.errors import Invalid
from chutes_core.sdk.config import ClientConfig
from chutes_core.wire.signing import sign_user


class Credentials(Protocol):
    """Something that signs requests."""

    def headers(self, body: bytes | None, purpose: str) -> dict[str, str]:
        """Return the headers that prove the caller, for this body or, without one, purpose."""
        ...


@dataclass(frozen=True)
class KeyCredentials:
    """An API key."""

    api_key: str = field(repr=False)

    def headers(self, body: bytes | None, purpose: str) -> dict[str, str]:
        """Return the bearer header."""
        return {"Authorization": f"Bearer {self.api_key}"}


class HotkeyCredentials:
    """A hotkey that signs each request; ``user_id`` is None only at registration."""

    def __init__(self, keypair: Keypair, user_id: str | None, clock: Clock | None = None) -> None:
        self._keypair = keypair
        self._user_id = user_id
        self._clock = clock or SystemClock()
        self._last_nonce_s = 0

    def headers(self, body: bytes | None, purpose: str) -> dict[str, str]:
        """Return the X-Chutes-* headers with a nonce of this process's own."""
        self._last_nonce_s = max(self._clock.now_s(), self._last_nonce_s + 1)
        signed = sign_user(
            self._keypair, body=body or None, purpose=purpose, nonce_s=self._last_nonce_s
        )
        return signed if self._user_id is None else {**signed, "X-Chutes-UserID": self._user_id}

    def skip(self, seconds: int) -> None:
        """Move the nonce on, after another process has used the same one."""
        self._last_nonce_s += seconds


def keypair_of(config: ClientConfig) -> Keypair:
    """Return the hotkey of the ini file.

    Raises:
        Invalid: ``not_registered`` or ``bad_seed``.
    """
    if not config.hotkey_seed:
        raise Invalid(
            "not_registered",
            "the configuration holds no hotkey",
            hint="run `chutes register`, or point CHUTES_CONFIG_PATH at your config.ini",
        )
    seed = config.hotkey_seed.removeprefix("0x")
    try:
        return Keypair.create_from_seed(bytes.fromhex(seed))
    except ValueError as error:
        raise Invalid(
            "bad_seed",
            "hotkey_seed in the configuration is no seed",
            hint="register again with the wallet, or write 64 hexadecimal digits",
        ) from error


def for_management(config: ClientConfig) -> Credentials:
    """Return what images, chutes and keys are managed with: the hotkey, else an API key."""
    if config.hotkey_seed or not config.api_key:
        return HotkeyCredentials(keypair_of(config), config.user_id)
    return KeyCredentials(config.api_key)


def for_calls(config: ClientConfig) -> KeyCredentials:
    """Return what chutes are called with: an API key, since a validator takes nothing else.

    Raises:
        Invalid: ``no_api_key``.
    """
    if not config.api_key:
        raise Invalid(
            "no_api_key",
            "chutes are called with an API key; a hotkey only manages them",
            hint="`chutes keys create --name mine --admin --save`, or set CHUTES_API_KEY",
        )
    return KeyCredentials(config.api_key)
