"""From which registries a miner pulls, and with which credentials."""

import pytest

from chutes_core.base.errors import ProtocolError
from chutes_core.engine.registry import Access
from chutes_core.miner.runtime.registries import Registries
from chutes_core.wire.control import ImageRef

OWN = Access(user="me", password="secret")
IMAGE_ID = "0b4deb3d-0ead-507e-8786-df31b4a8999b"


def ref(host, token="", path="/chutes/one", digest="sha256:" + "d" * 64):
    return ImageRef(
        image_id=IMAGE_ID,
        name="bob/app:1",
        kind="docker",
        path="",
        sha256="d" * 64,
        size_bytes=0,
        image_digest="sha256:" + "c" * 64,
        token=token,
        registry_ref=f"{host}{path}@{digest}",
    )


def test_the_operators_credentials_go_to_its_registry_alone():
    """Any other registry is shown the grant's pass, or nothing."""
    mine = Registries("r.example.com:5000", OWN)
    assert mine.access_to(ref("r.example.com:5000")) == OWN
    assert mine.access_to(ref("r.example.com")) == Access()
    assert mine.access_to(ref("elsewhere.example.com")) == Access()
    assert mine.access_to(ref("elsewhere.example.com", "pass")) == Access(token="pass")


def test_a_pass_of_the_grant_comes_before_the_operators_password():
    """It opens one image for an hour; the password opens more."""
    mine = Registries("r.example.com", OWN)
    assert mine.access_to(ref("r.example.com", "pass")) == Access(token="pass")


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.7:5000",
        "localhost:5000",
        "nas.local",
        "0x7f.1",
        "nas:5000",
        "x.localhost.",
        "127.0.0.1.",
    ],
)
def test_a_private_place_is_dialled_only_where_the_operator_named_it(host):
    """A validator cannot lead the engine into the miner's own network."""
    with pytest.raises(ProtocolError, match="registry_not_allowed"):
        Registries("r.example.com", OWN).access_to(ref(host, "pass"))
    assert Registries(host).access_to(ref(host, "pass")) == Access(token="pass")
    assert Registries(any_host=True).access_to(ref(host)) == Access()


@pytest.mark.parametrize(
    "wrong",
    [
        ref("library"),
        ref("r.example.com", path=""),
        ref("r.example.com", path="/a/../b?c"),
        ref("r.example.com", digest="latest"),
        ref("user@r.example.com"),
    ],
)
def test_a_name_that_an_engine_would_read_otherwise_is_refused(wrong):
    """Host, path and digest, and nothing else."""
    with pytest.raises(ProtocolError, match="bad_image_ref"):
        Registries(any_host=True).access_to(wrong)
