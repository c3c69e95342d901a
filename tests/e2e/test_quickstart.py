"""docs/quickstart.md, followed literally by a user who has only what the page asks for."""

import os
import re
import shutil
import socket
import subprocess

import httpx
import pytest
from bittensor_core import Keypair

from chutes_core.base.units import RAO_PER_TAO
from chutes_core.sdk.config import load_config
from scripts.chain_look import transfer
from scripts.localnet import ROOT, wait_until, write_wallet
from tests.e2e.patience import CALL_S, PATIENCE_S

PAGE = ROOT / "docs" / "quickstart.md"
BLOCK_TIMEOUT_S = 400


@pytest.mark.timeout(600)
def test_a_new_user_follows_the_page(lone_net, tmp_path):
    """Every block of the page succeeds, and shows what its text promises."""
    url = str(lone_net.start_validator(1).ready["url"])
    lone_net.register_miner(1)
    lone_net.start_miner(1)
    new_key = lambda: Keypair.create_from_mnemonic(Keypair.generate_mnemonic())  # noqa: E731
    write_wallet(tmp_path / "wallets", "ada", new_key(), new_key(), with_coldkey=False)
    environ = {
        "PATH": f"{tmp_path}/chutes-env/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CHECKOUT": str(checkout(tmp_path / "checkout")),
        "PORT": str(free_port()),
        "WALLETS": str(tmp_path / "wallets"),
        "CHUTES_API_URL": url,
        "CHUTES_CONFIG_PATH": str(tmp_path / "config.ini"),
    }
    environ |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 8

    follow(blocks[0], tmp_path, environ)
    first = follow(blocks[1], tmp_path, environ)
    address = re.search(r"pay to\s+(\S+)", first)[1]
    pay(lone_net, environ, address)
    printed = [follow(block, tmp_path, environ) for block in blocks[2:]]
    inspected, built, called, versions, secrets, _ = printed
    assert "POST /hello" in inspected
    assert "WRONG" not in inspected
    assert '{"text":"Hello, Ada!"}' in inspected
    assert "hot" in built
    assert called.count("Hello, Ada!") == 2
    assert versions.count("current") == 1
    assert "is at version" in versions
    assert "HF_TOKEN" in secrets
    assert "hf_abc" not in secrets


def checkout(folder):
    """Return a copy of what a package is made from, so that this checkout stays as it is."""
    folder.mkdir()
    for name in ("chutes_core", "graval"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def follow(block, folder, environ):
    """Run one block as typed into a shell and return what it printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=BLOCK_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}"
    return done.stdout


def pay(net, environ, address):
    """Send one TAO to the address that the page told, and wait for the credit."""
    alice = Keypair.create_from_uri("//Alice")
    transfer(net.chain.url, alice, address, RAO_PER_TAO)
    key = load_config({**environ}).api_key
    headers = {"Authorization": f"Bearer {key}"}

    def credited():
        answer = httpx.get(environ["CHUTES_API_URL"] + "/users/me", headers=headers, timeout=CALL_S)
        return answer.json()["balance_rao"] == RAO_PER_TAO

    wait_until(credited, PATIENCE_S, "the payment's credit")
