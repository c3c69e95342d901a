"""An application of the user-facing routes over a real store, called in process."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from bittensor_core import Keypair
from fastapi import FastAPI

from chutes_core.base.clock import ManualClock
from chutes_core.base.failures import FailedTries
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
from chutes_core.wire.signing import sign_user


class FakeAddresses:
    def payment(self, number):
        return f"payment-{number}"

    def deposit(self, number):
        return f"deposit-{number}"


def make_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@dataclass
class Api:
    """The application, its services, and a client that can sign."""

    services: Services
    http: httpx.AsyncClient
    clock: ManualClock
    woken: list[str] = field(default_factory=list)
    second_wake: asyncio.Event = field(default_factory=asyncio.Event)
    tails: list[str] = field(default_factory=list)

    async def signed(self, keypair, method, path, *, body=None, purpose="", **extra):
        self.clock.advance(1)
        content = None if body is None else json.dumps(body).encode()
        headers = sign_user(keypair, body=content, purpose=purpose, nonce_s=self.clock.now_s())
        if content is not None:
            headers["Content-Type"] = "application/json"
        return await self.http.request(method, path, content=content, headers={**headers, **extra})

    async def with_key(self, key, method, path, *, body=None, params=None):
        headers = {"Authorization": f"Bearer {key}"}
        return await self.http.request(method, path, json=body, headers=headers, params=params)

    async def register(self, keypair, username):
        body = {"username": username, "coldkey": keypair.ss58_address}
        return await self.signed(keypair, "POST", "/users/register", body=body)

    async def key(self, keypair, **body):
        answer = await self.signed(keypair, "POST", "/api_keys/", body={"name": "test", **body})
        assert answer.status_code == 200, answer.text
        return answer.json()["secret_key"]

    async def upload(self, keypair, username, *, files=None, **changes):
        fields = {
            "username": username,
            "name": "app",
            "tag": "1",
            "readme": "",
            "dockerfile": "FROM parachutes/python:3.12\n",
            "public": "False",
            "logo_id": "__none__",
            "wait": "False",
            "image": "gASVBAAAAAAAAACMAWGULg==",
            **changes,
        }
        context = make_zip(files or {"app.py": "print(1)"})
        request = self.http.build_request(
            "POST",
            "/images/",
            data=fields,
            files={"build_context": ("c.zip", context, "application/zip")},
        )
        content = await request.aread()
        self.clock.advance(1)
        headers = sign_user(keypair, body=content, purpose="images", nonce_s=self.clock.now_s())
        headers["Content-Type"] = request.headers["Content-Type"]
        return await self.http.post("/images/", content=content, headers=headers)


@pytest.fixture
async def api(tmp_path) -> AsyncIterator[Api]:
    clock = ManualClock()
    store = Store(tmp_path / "validator.db", clock=clock)
    woken: list[str] = []
    tails = [""]
    second_wake = asyncio.Event()

    async def tail(launch):
        return tails.pop(0) if len(tails) > 1 else tails[0]

    def wake(chute_id):
        woken.append(chute_id)
        if len(woken) == 2:  # the first status has been read by then
            second_wake.set()

    rates = Rates(tao_usd_micros=400_000_000, max_call_s=600)
    services = Services(
        store=store,
        accounts=Accounts(store, clock, FakeAddresses()),
        images=Images(store, clock, ProcessRuntimeBuilder()),
        chutes=Chutes(store, clock),
        ledger=Ledger(store),
        rates=rates,
        clock=clock,
        failures=FailedTries(clock),
        secrets=Secrets(store, clock, Vault(b"m" * 32)),
        tail=tail,
        wake=wake,
        reach=Reach(store, lambda launch: None),
        jobs=Jobs(store, clock, rates, spending=Unwatched, endings=Endings(store, clock)),
        poll_s=0.01,
    )
    app = FastAPI()
    install_errors(app)
    app.include_router(build_router(services))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://validator") as http:
        yield Api(services, http, clock, woken, second_wake, tails)
    store.close()


@pytest.fixture
def alice() -> Keypair:
    return Keypair.create_from_uri("//Alice")


@pytest.fixture
def bob() -> Keypair:
    return Keypair.create_from_uri("//Bob")


@pytest.fixture
def chute_body():
    def make(**changes):
        return {
            "name": "embeddings",
            "image": "app:1",
            "filename": "embeddings.py",
            "ref_str": "embeddings:chute",
            "code": "chute = 1\n",
            "tagline": "t",
            "readme": "",
            "public": False,
            "node_selector": {"gpu_count": 1, "min_vram_gb_per_gpu": 16},
            "cords": [
                {
                    "function": "embed",
                    "path": "/embed",
                    "method": "POST",
                    "public_api_path": "/v1/embeddings",
                    "public_api_method": "POST",
                    "stream": False,
                    "input_schema": {"type": "object"},
                }
            ],
            "jobs": [],
            "something_new": True,
            **changes,
        }

    return make


@pytest.fixture
def sha256():
    return lambda text: hashlib.sha256(text.encode()).hexdigest()
