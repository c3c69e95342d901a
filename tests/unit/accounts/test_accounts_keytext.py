import hashlib

import pytest

from chutes_core.validator.domain.keytext import (
    format_key,
    new_secret,
    parse_key,
    presented_key,
)

KEY = "00000000-0000-0000-0000-00000000000a"
USER = "00000000-0000-0000-0000-00000000000b"


def test_key_text_round_trips():
    """What is shown once is read back as ids and the hash of the secret."""
    secret = new_secret()
    said = parse_key(format_key(KEY, USER, secret))
    assert (said.key_id, said.user_id) == (KEY, USER)
    assert said.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()


def test_secrets_are_random_and_of_the_public_length():
    """Two secrets differ and have 32 letters and digits."""
    one, two = new_secret(), new_secret()
    assert one != two
    assert len(one) == 32
    assert one.isalnum()
    assert one.isascii()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "a",
        lambda t: t.replace("cpk_", "CPK_"),
        lambda t: t.replace(".", ":"),
        lambda t: t[:-1] + "-",
        lambda t: t[:-1] + "é",
        lambda t: t + "\n",
        lambda t: " " + t,
        lambda t: "",
    ],
)
def test_other_texts_are_no_keys(change):
    """Anything but the exact form is no key."""
    assert parse_key(change(format_key(KEY, USER, "a" * 32))) is None


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "found"),
    [
        ("Bearer k", None, "k"),
        ("bearer  k ", None, "k"),
        ("Basic k", None, "k"),
        ("k", None, "k"),
        (None, " k ", "k"),
        ("Bearer k", "other", "k"),
        ("Digest k", "other", None),
        (None, None, None),
        ("", "", None),
    ],
)
def test_keys_are_found_in_the_public_headers(authorization, x_api_key, found):
    """Bearer, Basic and bare Authorization, then X-API-Key."""
    assert presented_key(authorization, x_api_key) == found
