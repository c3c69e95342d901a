"""Derives an account's payment or deposit address from a treasury's *public* key.

On the money path before chain/transfers: a transfer is credited by the address that it went to.
Invariant: no secret is needed or accepted here; whoever holds the treasury's secret finds the same
key under the soft junction `/number`, and nobody else can spend from it.

Soft junctions of numbers are Substrate's `sp_core::DeriveJunction`: the number as a u64, little
endian, padded with zeros to 32 bytes.
"""

import sr25519
from bittensor_core import ss58_decode, ss58_encode

from chutes_core.base.errors import Invalid

_SS58_FORMAT = 42
MAX_ACCOUNT_NUMBER = 2**53 - 1
"""Account numbers also live in SQLite and JSON, which carry integers exactly up to here."""


def derive(treasury_public_ss58: str, number: int) -> str:
    """Return the SS58 address of soft child ``/number`` of a public sr25519 key.

    Raises:
        Invalid: ``bad_address`` or ``bad_account_number``.
    """
    if not 0 <= number <= MAX_ACCOUNT_NUMBER:
        raise Invalid("bad_account_number", f"{number} is not an account number")
    try:
        parent = bytes(ss58_decode(treasury_public_ss58))
    except ValueError as error:
        raise Invalid("bad_address", f"{treasury_public_ss58!r} is not an SS58 address") from error
    chain_code = number.to_bytes(8, "little").ljust(32, b"\0")
    _, public_key = sr25519.derive_pubkey((chain_code, parent), b"")
    return str(ss58_encode(bytes(public_key), _SS58_FORMAT))
