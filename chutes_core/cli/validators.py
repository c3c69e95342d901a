"""`chutes validators`: the subnet's validators, read from the chain, each asked whether it is up.

Invariant: an address counts as a validator's only when the hotkey that committed it has signed the
answer over a nonce of ours; what is chosen with --use is one that answered so.
"""

import concurrent.futures
import importlib.util
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import click
import httpx
from pydantic import ValidationError

from chutes_core.base.errors import ChutesError, NotFound, ProtocolError
from chutes_core.base.units import format_tao
from chutes_core.cli.options import emit, json_option, note, table
from chutes_core.sdk.answers import unreachable
from chutes_core.sdk.client import uses_proxy
from chutes_core.sdk.config import config_path, load_config, save_config
from chutes_core.wire.discovery import WELL_KNOWN_PATH, WellKnown, url_of

MAX_ANSWER_BYTES = 16 * 1024
ASK_S = 10.0
ASKED_AT_ONCE = 8
UP = "up"


@dataclass(frozen=True)
class Listed:
    """One validator of the chain's list."""

    hotkey: str
    url: str
    stake_rao: int


@dataclass(frozen=True)
class Found:
    """A validator and whether it is up: ``up``, or the code of what is wrong."""

    hotkey: str
    url: str
    stake_rao: int
    state: str
    in_use: bool


@click.command()
@click.option(
    "--network",
    envvar="CHUTES_CHAIN_URL",
    default="finney",
    show_default=True,
    help="A node of the chain, or a network's name; also CHUTES_CHAIN_URL.",
)
@click.option("--netuid", envvar="CHUTES_NETUID", default=64, show_default=True)
@click.option("--use", "wanted", metavar="HOTKEY", help="Keep this one as your validator.")
@json_option
def validators(network: str, netuid: int, wanted: str | None, as_json: bool) -> None:
    """List the subnet's validators, by stake, and whether each is up."""
    note(f"reading subnet {netuid} from {network}")
    genesis_hash, listed = read_chain(network, netuid)
    current = (load_config().api_url or "").rstrip("/")

    def ask(one: Listed) -> Found:
        state = state_of(one, genesis_hash=genesis_hash, netuid=netuid)
        return Found(one.hotkey, one.url, one.stake_rao, state, one.url.rstrip("/") == current)

    with concurrent.futures.ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        found = list(pool.map(ask, listed))
    if wanted is not None:
        use(found, wanted)
    emit([asdict(one) for one in found], as_json=as_json, text=_text(found))


def read_chain(network: str, netuid: int) -> tuple[str, list[Listed]]:
    """Return the chain's genesis hash and its validators with an address, most stake first.

    Raises:
        NotFound: ``chain_library_missing``. Unavailable: the chain cannot be read.
    """
    if importlib.util.find_spec("bittensor") is None:
        raise NotFound(
            "chain_library_missing",
            "reading the chain needs the bittensor package, which is not installed",
            hint="pip install bittensor, or set CHUTES_API_URL to a validator that you know",
        )
    from chutes_core.chain.client import ChainClient

    chain = ChainClient.connect(network, netuid)
    try:
        neurons, commitments = chain.metagraph().validators(), chain.commitments()
    finally:
        chain.close()
    listed = [
        Listed(neuron.hotkey, url, neuron.stake_rao)
        for neuron in neurons
        if (url := url_of(commitments.get(neuron.hotkey, ""))) is not None
    ]
    return chain.genesis_hash, sorted(listed, key=lambda one: (-one.stake_rao, one.hotkey))


def state_of(
    one: Listed, *, genesis_hash: str, netuid: int, fetch: Callable[[str], bytes] | None = None
) -> str:
    """Return ``up``, or the code of what is wrong with a validator's address."""
    nonce = secrets.token_hex(16)
    address = f"{one.url.rstrip('/')}{WELL_KNOWN_PATH}?nonce={nonce}"
    try:
        answer = _parsed((fetch or _fetch)(address))
        answer.check(
            hotkey_ss58=one.hotkey,
            url=one.url,
            nonce=nonce,
            genesis_hash=genesis_hash,
            netuid=netuid,
        )
    except ChutesError as error:
        return error.code
    return UP


def use(found: list[Found], wanted: str) -> None:
    """Write a validator's address into the configuration.

    Raises:
        NotFound: ``no_such_validator``: none of that hotkey is up.
    """
    chosen = [one for one in found if one.hotkey == wanted and one.state == UP]
    if not chosen:
        raise NotFound(
            "no_such_validator",
            f"no validator {wanted} is up",
            hint="choose one that the list shows as up",
        )
    path = config_path(os.environ)
    save_config(
        replace(load_config({"CHUTES_CONFIG_PATH": str(path)}), api_url=chosen[0].url), path
    )
    note(f"{chosen[0].url} is kept in {path}; an account belongs to one validator")


def _fetch(address: str) -> bytes:
    try:
        with httpx.Client(trust_env=uses_proxy(address), timeout=ASK_S) as client:
            answer = client.get(address)
    except httpx.HTTPError as error:
        raise unreachable(address, error) from error
    return answer.content[: MAX_ANSWER_BYTES + 1]


def _parsed(raw: bytes) -> WellKnown:
    try:
        return WellKnown.model_validate_json(raw)
    except ValidationError as error:
        raise ProtocolError(
            "not_a_validator", "the address answers as no validator", hint="its operator knows more"
        ) from error


def _text(found: list[Found]) -> str:
    if not found:
        return "no validator of this subnet has committed an address"
    rows: list[tuple[Any, ...]] = [
        (one.hotkey, f"{format_tao(one.stake_rao)} TAO", one.state, one.url, _mark(one))
        for one in found
    ]
    return table(rows, ("HOTKEY", "STAKE", "STATE", "ADDRESS", ""))


def _mark(one: Found) -> str:
    return "in use" if one.in_use else ""
