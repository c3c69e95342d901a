"""The doctor's look at the keys, the chain, the registration and the address that is announced.

Invariant: reads only; no key leaves this process and nothing is sent to the chain.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from chutes_core.base.errors import ChutesError
from chutes_core.chain.keys import NeuronKeys, load_neuron_keys
from chutes_core.miner.chain_view import Chain, Seen
from chutes_core.miner.checks import axon_ip, check_chain
from chutes_core.miner.doctor.report import Finding
from chutes_core.miner.settings import MinerSettings


@dataclass
class Known:
    """What the checks have learned so far, for those that need it."""

    keys: NeuronKeys | None = None
    chain: Chain | None = None
    seen: Seen | None = None


async def look_at_keys(settings: MinerSettings, known: Known) -> Iterable[Finding]:
    """Load the hotkey; say whether a coldkey lies beside it."""
    known.keys = await asyncio.to_thread(
        load_neuron_keys,
        settings.wallet_dir,
        settings.wallet_name,
        settings.hotkey,
        allow_coldkey=settings.allow_coldkey,
    )
    return [Finding("hotkey", "ok", known.keys.hotkey_ss58)]


async def look_at_chain(settings: MinerSettings, known: Known) -> Iterable[Finding]:
    """Read the chain: whether it is the right one, and whether the hotkey is registered."""
    chain = known.chain
    if chain is None:
        return [Finding("chain", "skip", "it was not reached")]
    seen = await asyncio.to_thread(lambda: Seen(chain.metagraph(), chain.commitments()))
    known.seen = seen
    findings = [
        Finding("chain", "ok", f"{settings.chain_url}, block {seen.metagraph.block}"),
        *_settings(settings, is_devnet=chain.is_devnet),
    ]
    if known.keys is not None:
        findings.append(_registration(settings, seen, known.keys.hotkey_ss58))
    return findings


def _settings(settings: MinerSettings, *, is_devnet: bool) -> Iterable[Finding]:
    try:
        check_chain(settings, is_devnet=is_devnet)
        found = f"announces {axon_ip(settings, is_devnet=is_devnet)}"
        bound = f"listens on {settings.host}:{settings.port} and :{settings.relay_port}"
        yield Finding("address", "ok", f"{found}, {bound}")
    except ChutesError as error:
        yield Finding("address", "fail", f"{error.message} [{error.code}]", error.hint)


def _registration(settings: MinerSettings, seen: Seen, hotkey: str) -> Finding:
    if seen.metagraph.by_hotkey(hotkey) is not None:
        return Finding("registration", "ok", f"registered on subnet {settings.netuid}")
    fix = (
        f"where the coldkey is: python scripts/register.py --network {settings.chain_url}"
        f" --netuid {settings.netuid} --wallet-name {settings.wallet_name}"
        f" --hotkey {settings.hotkey}"
    )
    return Finding("registration", "fail", f"not registered on subnet {settings.netuid}", fix)
