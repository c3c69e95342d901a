"""How a validator is found: its URL in a chain commitment, checked by a signed answer.

Invariant: an answer is only believed when the hotkey whose commitment named the URL signed it over
the caller's own nonce, for this chain and subnet.
"""

from bittensor_core import Keypair
from pydantic import Field

from chutes_core.base.errors import Invalid
from chutes_core.wire.control import Handshake
from chutes_core.wire.model import Hotkey, Message
from chutes_core.wire.signing import check_text_signature

WELL_KNOWN_PATH = "/.well-known/chutes"
_COMMITMENT_PREFIX = "chutes/1 "
MAX_COMMITMENT_BYTES = 128


class WellKnown(Message):
    """The signed self-description of a validator."""

    handshake: Handshake
    hotkey: Hotkey
    url: str = Field(max_length=120)
    netuid: int
    genesis_hash: str = Field(max_length=66)
    nonce: str = Field(max_length=64)
    signature: str = Field(default="", max_length=132)

    def signed(self, keypair: Keypair) -> "WellKnown":
        """Return a copy signed by the validator's hotkey."""
        signature = bytes(keypair.sign(self._text().encode())).hex()
        return self.model_copy(update={"signature": signature})

    def check(
        self, *, hotkey_ss58: str, url: str, nonce: str, genesis_hash: str, netuid: int
    ) -> None:
        """Check that this answer is what the caller asked for.

        Raises:
            Invalid: another hotkey, URL, nonce, chain or subnet.
            Unauthenticated: the signature does not fit.
        """
        expected = (hotkey_ss58, url, nonce, genesis_hash, netuid)
        if expected != (self.hotkey, self.url, self.nonce, self.genesis_hash, self.netuid):
            raise Invalid("discovery_mismatch", f"{url} answers as another validator or chain")
        check_text_signature(self._text(), self.signature, hotkey_ss58)

    def _text(self) -> str:
        return "|".join(
            (
                "chutes-discovery/1",
                self.nonce,
                self.hotkey,
                self.url,
                str(self.netuid),
                self.genesis_hash,
                self.handshake.version,
            )
        )


def commitment_of(url: str) -> str:
    """Return the text that a validator commits on chain.

    Raises:
        Invalid: the URL is too long for a commitment.
    """
    text = _COMMITMENT_PREFIX + url
    if len(text.encode()) > MAX_COMMITMENT_BYTES:
        raise Invalid("url_too_long", "the public URL does not fit a chain commitment")
    return text


def url_of(commitment: str) -> str | None:
    """Return the URL of a commitment of ours, or None where it is somebody else's text."""
    if not commitment.startswith(_COMMITMENT_PREFIX):
        return None
    return commitment[len(_COMMITMENT_PREFIX) :]
