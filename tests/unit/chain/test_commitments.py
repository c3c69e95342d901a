"""Text to and from commitment fields."""

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.chain.commitments import commitment_fields, commitment_text


@pytest.mark.parametrize("text", ["a", "chutes/1 https://example.org", "é" * 64])
def test_text_goes_round(text):
    """What was committed reads back."""
    assert commitment_text({"info": commitment_fields(text)}) == text


@pytest.mark.parametrize("text", ["", "x" * 129, "é" * 65])
def test_too_long_or_empty_text_is_refused(text):
    """The limit counts bytes."""
    with pytest.raises(Invalid, match="commitment_too_long"):
        commitment_fields(text)


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"info": None},
        {"info": {"fields": []}},
        {"info": {"fields": ["None"]}},
        {"info": {"fields": [{"Sha256": "0x" + "00" * 32}]}},
        {"info": {"fields": [{"TimelockEncrypted": {"reveal_round": 1}}]}},
        {"info": {"fields": [{"Raw2": "0xfffe"}]}},
        {"info": {"fields": [{"Raw2": "0xzz"}]}},
    ],
)
def test_what_is_no_plain_text_reads_as_none(record):
    """Hashes, sealed payloads and bytes that are no UTF-8 give no text."""
    assert commitment_text(record) == ""
