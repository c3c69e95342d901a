"""The ini file, credentials, and errors made from answers."""

import stat

import pytest
from bittensor_core import Keypair

from chutes_core.base import errors
from chutes_core.base.clock import ManualClock
from chutes_core.sdk import credentials
from chutes_core.sdk.answers import error_of
from chutes_core.sdk.config import ClientConfig, load_config, save_config
from chutes_core.sdk.credentials import HotkeyCredentials, KeyCredentials
from chutes_core.wire.signing import verify_user

SEED = "11" * 32


class OnceStore:
    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()

    def check_and_store(self, hotkey_ss58: str, nonce: str, expires_s: int) -> bool:
        fresh = (hotkey_ss58, nonce) not in self.seen
        self.seen.add((hotkey_ss58, nonce))
        return fresh


def test_a_saved_configuration_is_read_again(tmp_path):
    """Everything that is written comes back, and the file is its owner's alone."""
    path = tmp_path / "deep" / "config.ini"
    config = ClientConfig(
        api_url="http://v",
        username="bob",
        user_id="u",
        hotkey_seed=SEED,
        hotkey_name="h",
        hotkey_ss58="5x",
        payment_address="5%pay",
    )
    save_config(config, path)
    assert load_config({"CHUTES_CONFIG_PATH": str(path)}) == config
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_saving_keeps_what_others_wrote(tmp_path):
    """Sections that this version does not know survive."""
    path = tmp_path / "config.ini"
    path.write_text("[other]\nx = 1\n[auth]\nusername = old\nextra = 2\n")
    save_config(ClientConfig(username="new"), path)
    text = path.read_text()
    assert "x = 1" in text
    assert "extra = 2" in text
    assert "username = new" in text


def test_the_public_clients_file_is_read(tmp_path):
    """A file with the public client's sections gives the same account."""
    path = tmp_path / "config.ini"
    path.write_text(
        "[api]\nbase_url = http://v\n[auth]\nusername = bob\nuser_id = u\n"
        f"hotkey_seed = {SEED}\nhotkey_name = h\nhotkey_ss58address = 5x\n[payment]\naddress = 5p\n"
    )
    config = load_config({"CHUTES_CONFIG_PATH": str(path)})
    assert (config.api_url, config.username, config.hotkey_ss58) == ("http://v", "bob", "5x")
    assert config.payment_address == "5p"


def test_the_environment_wins(tmp_path):
    """CHUTES_API_URL and CHUTES_API_KEY stand above the file."""
    path = tmp_path / "config.ini"
    save_config(ClientConfig(api_url="http://file", api_key="cpk_file"), path)
    environ = {
        "CHUTES_CONFIG_PATH": str(path),
        "CHUTES_API_URL": "http://env",
        "CHUTES_API_KEY": "k",
    }
    config = load_config(environ)
    assert (config.api_url, config.api_key) == ("http://env", "k")


def test_a_broken_file_is_named(tmp_path):
    """A file that is no ini file is an error with its path."""
    path = tmp_path / "config.ini"
    path.write_text("no section\n")
    with pytest.raises(errors.Invalid, match=r"config\.ini"):
        load_config({"CHUTES_CONFIG_PATH": str(path)})


def test_secrets_are_not_in_a_repr():
    """Neither the seed nor a key shows in logs or tracebacks."""
    shown = repr(ClientConfig(hotkey_seed=SEED, api_key="cpk_x"))
    shown += repr(KeyCredentials("cpk_x"))
    assert SEED not in shown
    assert "cpk_x" not in shown


@pytest.mark.parametrize(("url", "code"), [(None, "no_api_url"), ("example.com", "bad_api_url")])
def test_an_address_is_needed(url, code):
    """No address, or one without http, is explained."""
    with pytest.raises(errors.Invalid, match=code):
        ClientConfig(api_url=url).require_api_url()


def test_signatures_verify_and_never_repeat():
    """Each request of a process is accepted by the server's own check, reads of one second too."""
    keypair, clock, nonces = Keypair.from_uri("//Bob"), ManualClock(), OnceStore()
    signer = HotkeyCredentials(keypair, "user-1", clock)
    for body, purpose in [(None, "images")] * 3 + [(b"{}", "")] * 2:
        headers = signer.headers(body, purpose)
        proof = {"purpose": purpose, "target": "GET /images/?", "now_s": clock.now_s()}
        caller = verify_user(headers, body, nonces=nonces, **proof)
        assert caller.hotkey_ss58 == keypair.ss58_address
        assert headers["X-Chutes-UserID"] == "user-1"


def test_registration_sends_no_user_id():
    """Before there is an account there is no user id to send."""
    assert "X-Chutes-UserID" not in HotkeyCredentials(Keypair.from_uri("//Bob"), None).headers(
        None, ""
    )


def test_which_credentials_are_used():
    """Managing prefers the hotkey, calling takes a key alone; what is missing is explained."""
    both = ClientConfig(hotkey_seed=SEED, user_id="u", api_key="cpk_x")
    assert isinstance(credentials.for_management(both), HotkeyCredentials)
    assert isinstance(credentials.for_calls(both), KeyCredentials)
    only_key = ClientConfig(api_key="cpk_x")
    assert credentials.for_management(only_key).headers(None, "me") == {
        "Authorization": "Bearer cpk_x"
    }
    with pytest.raises(errors.Invalid, match="not_registered"):
        credentials.for_management(ClientConfig())
    with pytest.raises(errors.Invalid, match="bad_seed"):
        credentials.for_management(ClientConfig(hotkey_seed="zz"))
    with pytest.raises(errors.Invalid, match="no_api_key") as caught:
        credentials.for_calls(ClientConfig(hotkey_seed=SEED, user_id="u"))
    assert "chutes keys create" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.Invalid),
        (401, errors.Unauthenticated),
        (402, errors.PaymentRequired),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (422, errors.Invalid),
        (429, errors.Exhausted),
        (502, errors.ProtocolError),
        (503, errors.Unavailable),
        (504, errors.TimedOut),
        (418, errors.Invalid),
    ],
)
def test_each_status_has_its_error(status, kind):
    """detail, code and hint of an answer become a typed error that keeps the status."""
    error = error_of(status, {}, b'{"detail": "d", "code": "c", "hint": "h"}')
    assert type(error) is kind
    assert (error.message, error.code, error.hint) == ("d", "c", "h")
    assert error.facts["http_status"] == status


def test_a_rate_limit_says_when():
    """Retry-After becomes a number and, without another hint, a hint."""
    error = error_of(429, {"retry-after": "7"}, b"{}")
    assert isinstance(error, errors.Exhausted)
    assert error.retry_after_s == 7
    assert "7 s" in error.hint


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b"\xff\x00", b'{"detail": null}'])
def test_foreign_answers_become_short_errors(body):
    """A proxy's page, or nothing at all, still gives a code and a sentence."""
    error = error_of(502, {}, body)
    assert (error.code, error.message) == ("http_502", "the server answered 502")


def test_validation_lists_become_text():
    """FastAPI's list of places is shown as one line."""
    body = b'{"detail": [{"loc": ["body", "name"], "msg": "Field required", "type": "missing"}]}'
    assert error_of(422, {}, body).message == "body.name: Field required"
