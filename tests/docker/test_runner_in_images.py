"""The runner in images that nobody made for it: each is built, launched, proven and called."""

import httpx
import pytest

from chutes_core.engine import archive
from chutes_core.engine.connect import connect
from scripts.runtimes import BASE_IMAGE
from tests.docker.pythons import home_of, public_package, python_alone
from tests.e2e.patience import CALL_S
from tests.e2e.people import rich_user

PYTHON310, PUBLIC = "chutes-test-python310:1", "chutes-test-public:1"
CHUTE = """
import importlib.metadata
import sys

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

image = Image(username="guest", name="NAME", tag="1").from_base("BASE")PREPARED
chute = Chute(
    username="guest",
    name="NAME",
    image=image,
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
)


@chute.cord(public_api_path="/look")
async def look(self) -> dict:
    names = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {
        "python": list(sys.version_info[:2]),
        "chutes": names.get("chutes", ""),
        "sdk": Chute.__module__,
    }
"""
NUMPY = '.run_command("python -m pip install -q numpy")'  # what a stand-in GPU's proof needs
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def guest(docker_net):
    """A user with images of all kinds."""
    return rich_user(docker_net, str(docker_net.validator.ready["url"]), "guest")


@pytest.fixture
def engine():
    """A client; the images of these tests go afterwards."""
    client = connect(None)
    yield client
    for name in (PYTHON310, PUBLIC):
        archive.remove(client, name)
    client.close()


def looked(guest, folder, name, base, prepared=""):
    """Deploy the chute on a base, warm it up, call it, delete it; return what it saw."""
    text = CHUTE.replace("NAME", name).replace("BASE", base).replace("PREPARED", prepared)
    (folder / f"{name}.py").write_text(text)
    guest.deploy(name, folder=folder)
    guest.chutes("warmup", name)
    try:
        url = f"{guest.url}/c/guest-{name}/look"
        answer = httpx.post(url, json={}, headers=guest.headers, timeout=CALL_S)
        assert answer.status_code == 200, answer.text
        return answer.json()
    finally:
        guest.chutes("chutes", "delete", name, "--yes")


def test_the_runner_works_with_python_3_10_and_no_package_of_ours(
    guest, engine, bare_image, tmp_path
):
    """The oldest Python that a chute's image may have, with pip and nothing else."""
    base = bare_image
    if home_of("3.10") is not None:
        base = PYTHON310
        python_alone(engine, tmp_path, base=bare_image, version="3.10", name=base)
    seen = looked(guest, tmp_path, "oldest", base, NUMPY)
    assert seen["sdk"].startswith("chutes_core.")
    if base != PYTHON310:
        pytest.skip(f"no Python 3.10 to copy; it works with {seen['python']}")
    assert seen["python"] == [3, 10]


def test_the_runner_works_beside_the_public_package(guest, engine, tmp_path):
    """The image has the public `chutes` from PyPI; the chute's imports lead to our SDK."""
    public_package(engine, tmp_path, base=BASE_IMAGE, name=PUBLIC)
    seen = looked(guest, tmp_path, "public", PUBLIC)
    assert seen["chutes"].startswith("0.6.")
    assert seen["sdk"].startswith("chutes_core.")
