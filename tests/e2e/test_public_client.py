"""The public client from PyPI, unmodified, against our validator: what people have keeps working.

The tests go the way of a user, in order: register, keys, build, deploy, look, share, warm up,
secrets, and calls by curl and by the `openai` package.
"""

import configparser
import json
import re
import subprocess

import pytest
from bittensor_core import Keypair

from chutes_core.base.units import RAO_PER_TAO
from scripts.chain_look import transfer
from scripts.localnet import Localnet, wait_until
from tests.e2e.patience import PATIENCE_S
from tests.e2e.people import rich_user
from tests.e2e.public_client import PublicClient, installed
from tests.e2e.two_and_two import Network

pytestmark = pytest.mark.timeout(600)  # it installs the client and warms a chute up

CODE = """
import json
import os

from pydantic import BaseModel, Field

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

image = (
    Image(username="mover", name="moved", tag="0.1", readme="## moved")
    .from_base("parachutes/python:3.12")
    .with_env("GREETING", "hello")
)
chute = Chute(
    username="mover",
    name="moved",
    image=image,
    tagline="moved from the public network",
    readme="# moved",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=24),
    concurrency=4,
)


class Say(BaseModel):
    text: str = Field(max_length=100)
    times: int = 1


@chute.on_startup()
async def start(self):
    print("the hook has run")
    self.token = os.environ.get("MOVED_TOKEN", "none")


@chute.cord(public_api_path="/say", public_api_method="POST")
async def say(self, data: Say) -> dict:
    return {"said": data.text * data.times, "token": self.token}


@chute.cord(
    public_api_path="/v1/chat/completions", stream=True, output_content_type="text/event-stream"
)
async def chat_stream(self, body: dict):
    for word in ("hel", "lo"):
        delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        yield "data: " + json.dumps({**head, "choices": [delta]}) + "\\n\\n"
    yield "data: [DONE]\\n\\n"


@chute.cord(path="/chat", public_api_path="/v1/chat/completions")
async def chat(self, body: dict) -> dict:
    message = {"role": "assistant", "content": body["messages"][-1]["content"]}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
"""
WARM_UP = """
import asyncio, sys
from chutes.config import get_config
from chutes.entrypoint.warmup import monitor_warmup
from chutes.util.auth import sign_request
asyncio.run(monitor_warmup(sys.argv[1], get_config(), sign_request(purpose="chutes")[0]))
"""
CHAT = """
import json, sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2])
ask = {"model": "mover/moved", "messages": [{"role": "user", "content": "echo me"}]}
whole = client.chat.completions.create(**ask).choices[0].message.content
parts = [c.choices[0].delta.content for c in client.chat.completions.create(**ask, stream=True)]
models = [model.id for model in client.models.list()]
print(json.dumps([whole, parts, models]))
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network of its own: on the shared one, other tests' chutes hold the GPUs for minutes."""
    with Localnet(tmp_path_factory.mktemp("public-network"), block_seconds=0.5, tempo=40) as net:
        yield Network(net)


@pytest.fixture(scope="module")
def public(network, tmp_path_factory):
    """The client of a new user, registered and with credit, and its chute file."""
    binaries, why = installed()
    if binaries is None:
        pytest.skip(f"the public client cannot be installed: {why}")
    client = PublicClient(tmp_path_factory.mktemp("public"), binaries, network.url(1))
    coldkey = Keypair.create_from_mnemonic(Keypair.generate_mnemonic())
    hotkey = Keypair.create_from_mnemonic(Keypair.generate_mnemonic())
    assert "User created successfully" in client.register("mover", coldkey, hotkey)
    (client.code / "moved.py").write_text(CODE)
    alice = Keypair.create_from_uri("//Alice")
    transfer(network.net.chain.url, alice, payment_address(client), RAO_PER_TAO)
    client.key = secret_of(client.run("keys", "create", "--name", "all", "--admin"))
    return client


def payment_address(client):
    """Return where the client's configuration says that its user pays."""
    config = configparser.ConfigParser()
    config.read(client.folder / "config.ini")
    return config["payment"]["address"]


def secret_of(printed):
    found = re.search(r'"secret_key": "(cpk_[^"]+)"', printed)
    assert found, printed
    return found[1]


def curl(public, path, *options, key=None):
    command = ["curl", "-sS", public.url + path, "-H", f"Authorization: Bearer {key or public.key}"]
    done = subprocess.run([*command, *options], capture_output=True, timeout=400, check=True)
    return json.loads(done.stdout)


def test_keys_are_made_listed_and_deleted(public):
    """A scoped key shows in the list, and not after its deletion."""
    printed = public.run("keys", "create", "--name", "callers", "--chutes", "--action", "invoke")
    key_id = re.search(r'"api_key_id": "([^"]+)"', printed)[1]
    listed = public.run("keys", "list")
    assert key_id in listed
    assert '"action": "invoke"' in listed
    assert f"api_key {key_id}" in public.run("keys", "get", key_id)
    assert "Successfully deleted" in public.run("keys", "delete", key_id)
    assert key_id not in public.run("keys", "list")


def test_a_custom_image_is_built_while_its_log_is_read(public):
    """`build --wait` uploads the context and prints the log to its end; a second one exists."""
    assert "built and pushed" not in public.run("images", "list")
    printed = public.run("build", "moved:chute", "--wait")
    assert "Uploaded image package" in printed
    assert "Error streaming" not in printed
    assert "built and pushed" in public.run("images", "list", "--name", "moved")
    assert '"status": "built and pushed"' in public.run("images", "get", "mover/moved:0.1")
    assert "already exists" in public.run("build", "moved:chute", "--wait")


def test_secrets_are_made_listed_and_deleted(public):
    """A secret shows without its value, and not after its deletion; one stays for the chute."""
    for key in ("MOVED_TOKEN", "SPARE"):
        printed = public.run(
            *("secrets", "create", "--purpose", "moved", "--key", key, "--value", "hf_hidden")
        )
        assert "Successfully created secret_id=" in printed
    secret_id = re.search(r"secret_id=([0-9a-f-]+)", printed)[1]
    listed = public.run("secrets", "list")
    assert "MOVED_TOKEN" in listed
    assert "hf_hidden" not in listed
    assert '"key": "SPARE"' in public.run("secrets", "get", secret_id)
    assert "Successfully deleted" in public.run("secrets", "delete", secret_id)
    assert "SPARE" not in public.run("secrets", "list")


def test_the_chute_is_deployed_and_shown(public):
    """`deploy --accept-fee` succeeds, and list and get show the chute with its cords."""
    assert "Successfully deployed chute moved" in public.run(
        "deploy", "moved:chute", "--accept-fee"
    )
    listed = public.run("chutes", "list")
    assert "mover-moved" in listed
    assert "POST /v1/chat/completions" in listed
    shown = public.run("chutes", "get", "moved")
    assert '"slug": "mover-moved"' in shown


def test_a_chute_is_shared_and_unshared(public, network):
    """Another user sees the chute while it is shared with it."""
    friend = rich_user(network.net, network.url(1), "friend")
    found = "/chutes/?limit=100"
    assert friend.get(found)["total"] == 0
    assert "is shared" in public.run("share", "--chute-id", "moved", "--user-id", "friend")
    assert [item["name"] for item in friend.get(found)["items"]] == ["moved"]
    public.run("share", "--chute-id", "moved", "--user-id", "friend", "--remove")
    assert friend.get(found)["total"] == 0


def test_warming_up_is_told_until_it_is_hot(public):
    """The warm-up's stream ends with hot, and the instance's output can be read."""
    assert "the chute answers" in public.python(WARM_UP, "moved")
    said = "the hook has run"
    assert said in public.watch("warmup", "moved", "--stream-logs", until=said)


def test_curl_calls_the_chute(public):
    """A key of the public client opens the chute by its slug; the secret reached its code."""
    wait_until(lambda: balance(public) >= RAO_PER_TAO // 2, PATIENCE_S, "the payment's credit")
    body = json.dumps({"text": "ab", "times": 2})
    answer = curl(public, "/c/mover-moved/say", "-d", body)
    assert answer == {"said": "abab", "token": "hf_hidden"}


def test_openai_calls_the_chute(public):
    """The `openai` package gets whole answers, streams and the list of models."""
    printed = public.python(CHAT, public.url, public.key)
    whole, parts, models = json.loads(printed.splitlines()[-1])
    assert whole == "echo me"
    assert parts == ["hel", "lo"]
    assert "mover/moved" in models


def test_the_caller_reports_a_call(public):
    """`report` finds the call by the id that its answer carried."""
    command = ["curl", "-sS", "-D", "-", "-o", "/dev/null", public.url + "/c/mover-moved/say"]
    command += ["-H", f"Authorization: Bearer {public.key}", "-d", '{"text": "a"}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    invocation_id = re.search(r"(?i)x-chutes-invocationid: ([0-9a-f-]+)", done.stdout)[1]
    arguments = ("report", "--invocation-id", invocation_id, "--reason", "too short")
    wait_until(lambda: "is reported" in public.run(*arguments), PATIENCE_S, "the call's record")


def test_the_chute_and_its_image_are_deleted(public):
    """After deletion neither is listed, and calls find nothing."""
    assert "Successfully deleted chute" in public.run("chutes", "delete", "moved")
    assert "Found 0 matching chutes" in public.run("chutes", "list")
    assert "Successfully deleted image" in public.run("images", "delete", "mover/moved:0.1")
    assert curl(public, "/c/mover-moved/say", "-d", "{}")["code"] == "chute_not_found"


def balance(public):
    return curl(public, "/users/me")["balance_rao"]
