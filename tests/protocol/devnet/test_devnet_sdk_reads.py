"""Every read that the unmodified SDK knows is answered; those that we model, with the truth."""

import asyncio

import bittensor as bt
import pytest
from bittensor.reads import REGISTRY

from chutes_core.devnet.genesis import dev_address

TIMEOUT_S = 90

OWNER, VALIDATOR = dev_address("//Owner"), dev_address("//Validator1")
VALIDATOR_HOTKEY = dev_address("//Validator1//hotkey")
BY_NAME = {
    "netuid": 1,
    "uid": 1,
    "mechid": 0,
    "mecid": 0,
    "lite": True,
    "block": 1,
    "block_number": 1,
    "call_hash": "0x" + "11" * 32,
    "crowdloan_id": 0,
    "lease_id": 0,
    "limit": 5,
    "amount_tao": 1,
    "amount_alpha": 1,
    "netuids": [0, 1],
    "coldkeys": [OWNER, VALIDATOR],
    "coldkey_ss58s": [OWNER, VALIDATOR],
    "hotkey_ss58s": [VALIDATOR_HOTKEY],
}


def argument(name):
    if name in BY_NAME:
        return BY_NAME[name]
    if name.endswith(("s58s", "_list")) or name.startswith("addresses"):
        return [VALIDATOR_HOTKEY if "hotkey" in name else VALIDATOR]
    if name.endswith("_ss58"):
        return VALIDATOR_HOTKEY if "hotkey" in name else VALIDATOR
    raise KeyError(name)


@pytest.fixture
async def client(devnet):
    client = bt.Client(devnet.url)
    async with client:
        yield client


@pytest.mark.parametrize("name", sorted(REGISTRY))
async def test_every_read_is_answered(client, name):
    """No read fails or hangs for want of an API, a method or a storage item."""
    arguments = {parameter: argument(parameter) for parameter in REGISTRY[name].params}
    await asyncio.wait_for(client.read(name, **arguments), TIMEOUT_S)
