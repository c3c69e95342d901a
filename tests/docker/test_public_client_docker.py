"""The public client from PyPI, unmodified, against a validator that really builds and runs images.

tests/e2e/test_public_client.py goes through every command of the client on the process runtime;
here the way from a Dockerfile to an answer is gone on containers.
"""

import json

import pytest
from bittensor_core import Keypair

from chutes_core.base.units import RAO_PER_TAO
from scripts.chain_look import transfer
from scripts.localnet import wait_until
from tests.e2e.public_client import PublicClient, installed
from tests.e2e.test_public_client import (
    CHAT,
    CODE,
    WARM_UP,
    balance,
    curl,
    payment_address,
    secret_of,
)

pytestmark = pytest.mark.timeout(900)
MADE = '.run_command("mkdir -p /opt/made && echo by-docker > /opt/made/how")'


@pytest.fixture(scope="module")
def public(docker_net, tmp_path_factory):
    """The client of a new user with credit, and a chute file whose image runs a command."""
    binaries, why = installed()
    if binaries is None:
        pytest.skip(f"the public client cannot be installed: {why}")
    url = docker_net.validator.ready["url"]
    client = PublicClient(tmp_path_factory.mktemp("public"), binaries, url)
    coldkey, hotkey = (Keypair.create_from_mnemonic(Keypair.generate_mnemonic()) for _ in range(2))
    assert "User created successfully" in client.register("mover", coldkey, hotkey)
    code = CODE.replace('.with_env("GREETING", "hello")', f'.with_env("A", "b"){MADE}')
    code = code.replace('"token": self.token', '"made": open("/opt/made/how").read().strip()')
    (client.code / "moved.py").write_text(code)
    alice = Keypair.create_from_uri("//Alice")
    transfer(docker_net.chain.url, alice, payment_address(client), RAO_PER_TAO)
    client.key = secret_of(client.run("keys", "create", "--name", "all", "--admin"))
    return client


def test_what_the_client_built_and_deployed_answers_from_a_container(public):
    """build --wait shows Docker's steps; curl and the `openai` package are answered."""
    printed = public.run("build", "moved:chute", "--wait")
    assert "installing the runner" in printed
    assert '"status": "built and pushed"' in public.run("images", "get", "mover/moved:0.1")
    deployed = public.run("deploy", "moved:chute", "--accept-fee")
    assert "Successfully deployed chute moved" in deployed
    assert "the chute answers" in public.python(WARM_UP, "moved")
    wait_until(lambda: balance(public) >= RAO_PER_TAO // 2, 180, "the payment's credit")
    answer = curl(public, "/c/mover-moved/say", "-d", '{"text": "ab", "times": 2}')
    assert answer == {"said": "abab", "made": "by-docker"}
    whole, parts, _ = json.loads(public.python(CHAT, public.url, public.key).splitlines()[-1])
    assert (whole, parts) == ("echo me", ["hel", "lo"])
    assert "Successfully deleted chute" in public.run("chutes", "delete", "moved")
    assert "Successfully deleted image" in public.run("images", "delete", "mover/moved:0.1")
