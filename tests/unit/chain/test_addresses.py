"""Soft derivation from a public key agrees with derivation from the secret."""

import pytest
from substrateinterface import Keypair

from chutes_core.base.errors import Invalid
from chutes_core.chain.addresses import MAX_ACCOUNT_NUMBER, derive

TREASURY = Keypair.create_from_uri("//Treasury")


@pytest.mark.parametrize("number", [0, 1, 7, 255, 256, 65_536, 2**40, MAX_ACCOUNT_NUMBER])
def test_child_of_the_public_key_is_the_secrets_child(number):
    """Whoever holds the treasury's secret can spend what is paid to a derived address."""
    expected = Keypair.create_from_uri(f"//Treasury/{number}").ss58_address
    assert derive(TREASURY.ss58_address, number) == expected


@pytest.mark.parametrize("number", [-1, MAX_ACCOUNT_NUMBER + 1])
def test_numbers_outside_the_range_are_refused(number):
    """No two account numbers share an address by wrapping around."""
    with pytest.raises(Invalid, match="bad_account_number"):
        derive(TREASURY.ss58_address, number)


@pytest.mark.parametrize("address", ["", "5abc", TREASURY.ss58_address[:-1] + "1"])
def test_broken_address_is_refused(address):
    """A treasury address with a wrong check sum derives nothing."""
    with pytest.raises(Invalid, match="bad_address"):
        derive(address, 1)
