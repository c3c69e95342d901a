"""Which validators there are and where: commitments of permitted hotkeys, each checked by a nonce.

Path: ChainView -> candidates (pure) -> GET /.well-known/chutes -> Validator. Invariant: a URL is
only used after its answer was signed by the hotkey that committed it, for this chain and subnet;
off a devnet only URLs whose every address is global are dialled.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError
from chutes_core.miner.chain_view import Seen
from chutes_core.wire.discovery import WellKnown, url_of
from chutes_core.wire.urls import check_url

RECHECK_S = 300
_FIRST_RETRY_S = 1
_MAX_RETRY_S = 60
Fetch = Callable[[str, str], Awaitable[WellKnown]]
"""Given (url, nonce), asks that URL for its self-description."""


@dataclass(frozen=True)
class Validator:
    """One validator that this miner may serve."""

    hotkey: str
    url: str
    stake_rao: int


@dataclass(frozen=True)
class ServePolicy:
    """Which validators the operator serves; ``chosen`` None means every permitted one."""

    chosen: frozenset[str] | None
    min_stake_rao: int


@dataclass(frozen=True)
class _Refusal:
    url: str
    code: str
    wait_s: int
    retry_at_s: int


def candidates(seen: Seen, policy: ServePolicy) -> tuple[Validator, ...]:
    """Return permitted validators with enough stake and a committed URL, by hotkey."""
    found = []
    for neuron in seen.metagraph.validators():
        if policy.chosen is not None and neuron.hotkey not in policy.chosen:
            continue
        url = url_of(seen.commitments.get(neuron.hotkey, ""))
        if url is not None and neuron.stake_rao >= policy.min_stake_rao:
            found.append(Validator(neuron.hotkey, url, neuron.stake_rao))
    return tuple(sorted(found, key=lambda validator: validator.hotkey))


class Directory:
    """The validators whose URLs were checked."""

    def __init__(
        self,
        fetch: Fetch,
        *,
        policy: ServePolicy,
        genesis_hash: str,
        netuid: int,
        allow_private: bool,
        clock: Clock,
    ) -> None:
        self._fetch = fetch
        self._policy = policy
        self._genesis_hash = genesis_hash
        self._netuid = netuid
        self._allow_private = allow_private
        self._clock = clock
        self._checked: dict[str, tuple[Validator, int]] = {}
        self._refused: dict[str, _Refusal] = {}

    @property
    def validators(self) -> tuple[Validator, ...]:
        """Return the checked validators, by hotkey."""
        return tuple(self._checked[hotkey][0] for hotkey in sorted(self._checked))

    def get(self, hotkey_ss58: str) -> Validator | None:
        """Return a checked validator."""
        entry = self._checked.get(hotkey_ss58)
        return entry[0] if entry else None

    async def refresh(self, seen: Seen) -> tuple[Validator, ...]:
        """Follow the chain; return validators that were not known before.

        A validator that was checked stays while its URL does, even when it is down just now: its
        launches run on, and calls to it fail on their own.
        """
        wanted = {validator.hotkey: validator for validator in candidates(seen, self._policy)}
        for hotkey in [h for h in self._checked if h not in wanted]:
            del self._checked[hotkey]
            logger.bind(validator=hotkey).info("validator was dropped")
        results = await asyncio.gather(*(self._follow(v) for v in wanted.values()))
        return tuple(validator for validator in results if validator is not None)

    async def _follow(self, validator: Validator) -> Validator | None:
        now_s = self._clock.now_s()
        known = self._checked.get(validator.hotkey)
        if known and known[0].url == validator.url and now_s - known[1] < RECHECK_S:
            self._checked[validator.hotkey] = (validator, known[1])
            return None
        refusal = self._refused.get(validator.hotkey)
        if refusal and refusal.url == validator.url and now_s < refusal.retry_at_s:
            return None
        try:
            await self._check(validator)
        except ChutesError as error:
            self._note_refusal(validator, error)
            if known and known[0].url != validator.url:
                del self._checked[validator.hotkey]
            return None
        self._refused.pop(validator.hotkey, None)
        self._checked[validator.hotkey] = (validator, now_s)
        if known and known[0].url == validator.url:
            return None
        logger.bind(validator=validator.hotkey, url=validator.url).info("validator was found")
        return validator

    async def _check(self, validator: Validator) -> None:
        await check_url(validator.url, allow_private=self._allow_private)
        nonce = secrets.token_hex(16)
        answer = await self._fetch(validator.url, nonce)
        answer.check(
            hotkey_ss58=validator.hotkey,
            url=validator.url,
            nonce=nonce,
            genesis_hash=self._genesis_hash,
            netuid=self._netuid,
        )

    def _note_refusal(self, validator: Validator, error: ChutesError) -> None:
        last = self._refused.get(validator.hotkey)
        again = last is not None and (last.url, last.code) == (validator.url, error.code)
        wait_s = min(_MAX_RETRY_S, last.wait_s * 2) if last and again else _FIRST_RETRY_S
        self._refused[validator.hotkey] = _Refusal(
            validator.url, error.code, wait_s, self._clock.now_s() + wait_s
        )
        if not again:
            logger.bind(validator=validator.hotkey, url=validator.url, code=error.code).warning(
                "validator could not be checked: {}", error.message
            )
