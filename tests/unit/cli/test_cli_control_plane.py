"""The commands against the validator's real control plane, over a real socket."""

import json
import threading
from pathlib import Path

import bittensor_core
import pytest
import uvicorn
from fastapi import FastAPI

from chutes_core.base import ids
from chutes_core.base.clock import SystemClock
from chutes_core.base.failures import FailedTries
from chutes_core.cli.rollback import choose
from chutes_core.validator.accounts.secrets import Secrets
from chutes_core.validator.accounts.service import Accounts
from chutes_core.validator.api.errors import install_errors
from chutes_core.validator.api.router import build_router
from chutes_core.validator.api.services import Services
from chutes_core.validator.billing.ledger import Ledger
from chutes_core.validator.billing.rates import Rates
from chutes_core.validator.catalog.builder import ProcessRuntimeBuilder
from chutes_core.validator.catalog.chutes import Chutes
from chutes_core.validator.catalog.images import Images
from chutes_core.validator.domain.spending import Unwatched
from chutes_core.validator.jobs.ending import Endings
from chutes_core.validator.jobs.ports.reach import Reach
from chutes_core.validator.jobs.service import Jobs
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.store.database import Store

EXAMPLES = Path(__file__).parents[3] / "examples"


class Addresses:
    def payment(self, number: int) -> str:
        return f"payment-{number}"

    def deposit(self, number: int) -> str:
        return f"deposit-{number}"


async def no_tail(launch):
    return ""


@pytest.fixture
def validator(tmp_path, monkeypatch):
    """The control plane on a free port, and a wallet for a user of it."""
    clock = SystemClock()
    store = Store(tmp_path / "validator.db", clock=clock)
    rates = Rates(tao_usd_micros=400_000_000, max_call_s=600)
    services = Services(
        store=store,
        accounts=Accounts(store, clock, Addresses()),
        images=Images(store, clock, ProcessRuntimeBuilder()),
        chutes=Chutes(store, clock),
        ledger=Ledger(store),
        rates=rates,
        clock=clock,
        failures=FailedTries(clock),
        secrets=Secrets(store, clock, Vault(b"m" * 32)),
        tail=no_tail,
        wake=lambda chute_id: None,
        reach=Reach(store, lambda launch: None),
        jobs=Jobs(store, clock, rates, spending=Unwatched, endings=Endings(store, clock)),
        poll_s=0.01,
    )
    app = FastAPI()
    install_errors(app)
    app.include_router(build_router(services))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    listening = threading.Event()
    start = server.startup

    async def startup(sockets=None):
        await start(sockets)
        listening.set()

    server.startup = startup
    thread = threading.Thread(target=server.run)
    thread.start()
    assert listening.wait(20)
    port = server.servers[0].sockets[0].getsockname()[1]
    monkeypatch.setenv("CHUTES_API_URL", f"http://127.0.0.1:{port}")
    _write_wallet(tmp_path / "wallets")
    monkeypatch.chdir(EXAMPLES)
    yield tmp_path
    server.should_exit = True
    thread.join(20)
    store.close()


def test_from_registration_to_a_deployed_chute(run, validator):
    """A user registers, makes a key, builds and deploys an example, and cleans up again."""
    wallet = ("--wallet-path", str(validator / "wallets"), "--wallet-name", "w", "--hotkey", "h")
    account = run("register", "--username", "demo", *wallet, "--json")
    assert account.code == 0, account
    assert account.json["payment_address"] == "payment-1"
    assert run("balance", "--json").json["username"] == "demo"
    key = run("keys", "create", "--name", "k", "--chutes", "--action", "invoke", "--save", "--json")
    assert key.json["secret_key"].startswith("cpk_")

    early = run("deploy", "echo:chute", "--json")
    assert (early.code, early.json["error"]["code"]) == (1, "no_such_image")
    built = run("build", "echo:chute", "--wait", "--json")
    assert built.code == 0, built
    assert built.json["status"] == "built and pushed"
    again = run("build", "echo:chute", "--json")
    assert (again.code, again.json["error"]["code"]) == (1, "image_exists")

    deployed = run("deploy", "echo:chute", "--json")
    assert deployed.code == 0, deployed
    inspected = run("inspect", "echo:chute", "--json").json
    for name in ("chute_id", "version", "slug"):
        assert deployed.json[name] == inspected[name]
    shown = run("chutes", "get", "echo", "--json").json
    assert shown["cords"] == inspected["cords"]
    assert shown["node_selector"]["gpu_count"] == 1
    assert "demo-echo" in run("chutes", "list").out
    image = run("images", "get", "demo/echo:1.0", "--json").json
    assert image["image_id"] == ids.image_id("demo", "echo", "1.0")

    in_use = run("images", "delete", "demo/echo:1.0", "--yes", "--json")
    assert (in_use.code, in_use.json["error"]["code"]) == (1, "image_in_use")
    assert run("chutes", "delete", "echo", "--yes").code == 0
    assert run("images", "delete", "demo/echo:1.0", "--yes").code == 0
    assert run("keys", "delete", key.json["api_key_id"], "--yes").code == 0
    assert run("keys", "list", "--json").json["total"] == 0


@pytest.mark.parametrize("name", ["chat", "embeddings", "pictures", "stream", "webserver"])
def test_the_examples_are_accepted(run, validator, name):
    """The validator takes every example as it is: names, cords, schemas, sizes."""
    wallet = ("--wallet-path", str(validator / "wallets"), "--wallet-name", "w", "--hotkey", "h")
    assert run("register", "--username", "demo", *wallet).code == 0
    assert run("build", f"{name}:chute", "--wait").code == 0
    assert run("deploy", f"{name}:chute", "--public").code == 0
    cords = run("chutes", "get", name, "--json").json["cords"]
    assert cords == run("inspect", f"{name}:chute", "--json").json["cords"]


TEMPLATE = """
from chutes.chute import NodeSelector
from chutes.chute.template.{name} import build_{name}_chute
from chutes.image import Image

image = Image(username="demo", name="engine", tag="1")
chute = build_{name}_chute(
    username="demo", {model}, node_selector=NodeSelector(gpu_count=2), image=image
)
"""


@pytest.mark.parametrize("name", ["vllm", "sglang", "embedding", "diffusion"])
def test_the_templates_chutes_are_accepted(run, validator, monkeypatch, name):
    """The validator takes what a template makes: cords that share a path, schemas, sizes."""
    monkeypatch.chdir(validator)
    model = 'model_name="Org/M-7B", revision="0" * 40'
    if name == "diffusion":
        model = 'name="painter", model_name_or_url="Org/sdxl"'
    Path("made.py").write_text(TEMPLATE.format(name=name, model=model))
    wallet = ("--wallet-path", str(validator / "wallets"), "--wallet-name", "w", "--hotkey", "h")
    assert run("register", "--username", "demo", *wallet).code == 0
    assert run("build", "made:chute", "--wait").code == 0
    done = run("deploy", "made:chute", "--json")
    assert done.code == 0, done.out
    cords = run("chutes", "get", done.json["chute_id"], "--json").json["cords"]
    assert cords == run("inspect", "made:chute", "--json").json["cords"]


WALLET = ("--wallet-name", "w", "--hotkey", "h")


def deployed(run, validator, name="greeter"):
    wallet = ("--wallet-path", str(validator / "wallets"), *WALLET)
    assert run("register", "--username", "demo", *wallet).code == 0
    written = run("init", name, "--json")
    assert written.code == 0, written
    assert run("build", f"{name}:chute", "--wait").code == 0
    assert run("deploy", f"{name}:chute").code == 0
    return validator


def test_what_init_writes_is_deployed_as_it_is(run, validator, monkeypatch):
    """The written chute builds and deploys; a second one does not overwrite it."""
    monkeypatch.chdir(validator)
    deployed(run, validator)
    again = run("init", "greeter", "--json")
    assert (again.code, again.json["error"]["code"]) == (2, "file_exists")
    shown = run("status", "greeter", "--json").json
    assert (shown["phase"], shown["reason"]) == ("cold", "waiting for a miner to take it up")
    assert "cold" in run("status", "greeter").out
    none = run("logs", "greeter", "--json")
    assert (none.code, none.json["error"]["code"]) == (2, "no_instance")


def test_secrets_of_a_chute(run, validator, monkeypatch):
    """A secret is made with the line on what a miner sees, listed without value, deleted."""
    monkeypatch.chdir(validator)
    deployed(run, validator)
    options = ("--purpose", "greeter", "--key", "TOKEN", "--value", "hidden")
    made = run("secrets", "create", *options, "--json")
    assert made.code == 0, made
    assert "miner" in made.json["note"]
    listed = run("secrets", "list")
    assert "TOKEN" in listed.out
    assert "hidden" not in listed.out
    assert run("secrets", "delete", made.json["secret_id"], "--yes").code == 0
    assert run("secrets", "list", "--json").json["total"] == 0


def test_sharing_needs_a_user(run, validator, monkeypatch):
    """Sharing with nobody, and reporting no call, are refused with a code."""
    monkeypatch.chdir(validator)
    deployed(run, validator)
    shared = run("share", "--chute-id", "greeter", "--user-id", "nobody", "--json")
    assert (shared.code, shared.json["error"]["code"]) == (1, "no_such_user")
    reported = run("report", "--invocation-id", "x", "--reason", "y", "--json")
    assert (reported.code, reported.json["error"]["code"]) == (1, "no_such_invocation")


def test_rolling_back_deploys_the_earlier_version(run, validator, monkeypatch):
    """After a new version, rollback makes the first one current again."""
    monkeypatch.chdir(validator)
    deployed(run, validator)
    first = run("chutes", "get", "greeter", "--json").json["version"]
    file = validator / "greeter.py"
    file.write_text(file.read_text().replace('"Hello"', '"Hi"'))
    second = run("deploy", "greeter:chute", "--json").json["version"]
    assert second != first
    done = run("rollback", "greeter", "--yes", "--json")
    assert done.code == 0, done
    assert done.json["version"] == first
    listed = json.loads(run("rollback", "greeter", "--list", "--json").out)
    assert [item["current"] for item in listed["items"]] == [True, False]


def test_a_version_is_chosen_by_its_beginning():
    """A few characters name a version."""
    items = [{"version": "abc", "current": False}, {"version": "axy", "current": True}]
    assert choose(items, "ab")["version"] == "abc"


def _write_wallet(path: Path) -> None:
    folder = path / "w"
    (folder / "hotkeys").mkdir(parents=True)
    keypair = bittensor_core.Keypair.from_mnemonic(bittensor_core.Keypair.generate_mnemonic(12))
    data = bytes(bittensor_core.serialized_keypair_to_keyfile_data(keypair))
    (folder / "hotkeys" / "h").write_bytes(data)
    cold = bittensor_core.Keypair.from_uri("//Cold").ss58_address
    (folder / "coldkeypub.txt").write_text(json.dumps({"ss58Address": cold}))
