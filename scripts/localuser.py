"""A user of a local network: wallet, command line, HTTP calls. For the demo and the tests.

Only public ways in are used. Invariant: its files lie under the network's folder.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from bittensor_core import Keypair

from chutes_core.base.errors import Unavailable
from chutes_core.base.units import RAO_PER_TAO
from scripts.chain_look import transfer
from scripts.localnet import HOTKEY, ROOT, Localnet, wait_until, write_wallet

EXAMPLES = ROOT / "examples"
COMMAND_TIMEOUT_S = 400
CALL_TIMEOUT_S = 150.0
CREDIT_TIMEOUT_S = 180.0


class LocalUser:
    """One user at one validator.

    Args:
        net: the running network.
        url: the validator's address.
        username: of the account to be.
    """

    def __init__(self, net: Localnet, url: str, username: str = "demo") -> None:
        self.url = url
        self.username = username
        self.account: dict[str, Any] = {}
        self.api_key = ""
        self._net = net
        self._folder = net.folder / f"user-{username}"
        self.coldkey = Keypair.create_from_mnemonic(Keypair.generate_mnemonic())
        self.hotkey = Keypair.create_from_mnemonic(Keypair.generate_mnemonic())

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that present the API key."""
        return {"Authorization": f"Bearer {self.api_key}"}

    @property
    def wallet(self) -> tuple[str, ...]:
        """Return the options that name the wallet."""
        wallets = str(self._folder / "wallets")
        return ("--wallet-path", wallets, "--wallet-name", self.username)

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment of this user's commands."""
        own = {
            "CHUTES_API_URL": self.url,
            "CHUTES_CONFIG_PATH": str(self._folder / "config.ini"),
        }
        key = {"CHUTES_API_KEY": self.api_key} if self.api_key else {}
        return {**os.environ, **own, **key}

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of one `chutes` command with --json."""
        return [str(Path(sys.executable).with_name("chutes")), *arguments, "--json"]

    def register(self) -> dict[str, Any]:
        """Create a wallet and open the account."""
        wallets = self._folder / "wallets"
        write_wallet(wallets, self.username, self.coldkey, self.hotkey, with_coldkey=True)
        self.account = self.chutes(
            *("register", "--username", self.username, *self.wallet),
            *("--hotkey", HOTKEY, "--yes"),
        )
        return self.account

    def pay(self, rao: int) -> None:
        """Pay from the own coldkey and wait until the payment is credited."""
        chain = self._net.chain.url
        alice = Keypair.create_from_uri("//Alice")
        transfer(chain, alice, self.coldkey.ss58_address, rao + RAO_PER_TAO)  # a devnet's faucet
        before = self.balance_rao()
        transfer(chain, self.coldkey, str(self.account["payment_address"]), rao)
        wait_until(
            lambda: self.balance_rao() == before + rao, CREDIT_TIMEOUT_S, "the payment's credit"
        )

    def make_key(self, *options: str) -> str:
        """Make an API key (admin by default), use it from now on, and return it."""
        asked = options or ("--admin",)
        key = self.chutes("keys", "create", "--name", "demo", *asked)
        self.api_key = str(key["secret_key"])
        return self.api_key

    def build(self, name: str, *, folder: Path = EXAMPLES) -> dict[str, Any]:
        """Build the image of `folder/name.py`; return what the command says of it."""
        return self.chutes("build", f"{name}:chute", "--wait", cwd=folder)

    def deploy(self, name: str, *, folder: Path = EXAMPLES) -> dict[str, Any]:
        """Build and deploy `folder/name.py`; return the chute."""
        self.build(name, folder=folder)
        return self.deploy_built(name, folder=folder)

    def deploy_built(self, name: str, *, folder: Path = EXAMPLES) -> dict[str, Any]:
        """Deploy `folder/name.py` on its image; return the chute."""
        return self.chutes("deploy", f"{name}:chute", "--accept-fee", cwd=folder)

    def chutes(self, *arguments: str, cwd: Path = ROOT) -> dict[str, Any]:
        """Run the `chutes` command with --json and return its answer.

        Raises:
            Unavailable: it failed; the message holds its output.
        """
        done = subprocess.run(
            self.command(*arguments),
            cwd=cwd,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        if done.returncode != 0:
            shown = " ".join(arguments)
            raise Unavailable("command_failed", f"chutes {shown}: {done.stdout}{done.stderr}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def get(self, path: str) -> dict[str, Any]:
        """GET JSON from the validator."""
        answer = httpx.get(self.url + path, headers=self.headers, timeout=CALL_TIMEOUT_S)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """POST JSON to the validator.

        Raises:
            Unavailable: the answer is not 200.
        """
        answer = httpx.post(
            self.url + path, json=body, headers=self.headers, timeout=CALL_TIMEOUT_S
        )
        if answer.status_code != 200:
            raise Unavailable("call_failed", f"{path}: {answer.status_code} {answer.text}")
        return answer

    def balance_rao(self) -> int:
        """Return the balance as the ledger has it."""
        return int(self.chutes("balance")["balance_rao"])

    def charges(self) -> list[tuple[str, int]]:
        """Return (invocation id, rao) of every charge, newest first, repeated ones repeated."""
        items: list[dict[str, Any]] = []
        while True:
            page = self.get(f"/users/me/statement?limit=100&page={len(items) // 100}")
            items += page["items"]
            if len(items) >= page["total"] or not page["items"]:
                break
        return [
            (str(item["key"]).removeprefix("invocation:"), -int(item["rao"]))
            for item in items
            if item["kind"] == "invocation"
        ]
