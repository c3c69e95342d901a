"""A validator's public port before a real runner: store, jobs, API, data plane, and a real relay.

What is a test's own here: the account and its key, and that the run is running already.
"""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

from fastapi import FastAPI

from chutes_core.base.clock import SystemClock
from chutes_core.base.failures import FailedTries
from chutes_core.miner.relay import Relay
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
from chutes_core.validator.domain.accounts import Scope
from chutes_core.validator.domain.jobs import JobPort, JobRun, JobState
from chutes_core.validator.domain.launches import LaunchState
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.spending import Unwatched
from chutes_core.validator.gateway.plane.server import Plane
from chutes_core.validator.jobs.ending import Endings
from chutes_core.validator.jobs.ports.reach import Reach
from chutes_core.validator.jobs.service import Jobs
from chutes_core.validator.launches.instance import InstanceAddress
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.store.database import Store

CHUTE_ID = "00000000-0000-4000-8000-000000000001"


class Addresses:
    def payment(self, number: int) -> str:
        return f"payment-{number}"

    def deposit(self, number: int) -> str:
        return f"deposit-{number}"


class NoFast:
    """A data plane whose every request takes the bridge."""

    def begin(self, connection, request) -> bool:
        return False

    def is_call(self, request) -> bool:
        return False


class PortHouse:
    """Attributes: ``port`` of the plane, ``job_id`` of the run, ``key`` of its user."""

    def __init__(self, folder, *, check_s=3600.0):
        self.clock = SystemClock()
        self.store = store = Store(folder / "validator.db", clock=self.clock)
        self.address = None
        rates = Rates(tao_usd_micros=400_000_000, max_call_s=600)
        self.reach = Reach(store, lambda launch: self.address, check_s=check_s)
        self.accounts = Accounts(store, self.clock, Addresses())
        self.services = Services(
            store=store,
            accounts=self.accounts,
            images=Images(store, self.clock, ProcessRuntimeBuilder()),
            chutes=Chutes(store, self.clock),
            ledger=Ledger(store),
            rates=rates,
            clock=self.clock,
            failures=FailedTries(self.clock),
            secrets=Secrets(store, self.clock, Vault(b"m" * 32)),
            tail=lambda launch: "",
            wake=lambda chute_id: None,
            reach=self.reach,
            jobs=Jobs(
                store, self.clock, rates, spending=Unwatched, endings=Endings(store, self.clock)
            ),
        )
        self.app = FastAPI()
        install_errors(self.app)
        self.app.include_router(build_router(self.services))
        self.port = 0

    def user(self, name, keypair):
        """Register a user; return the account and a key that may call the chute."""
        address = keypair.ss58_address
        account = self.accounts.register(
            username=name, hotkey_ss58=address, coldkey_ss58=address
        ).account
        return account, self.key(account, Scope("chutes", CHUTE_ID, "invoke"))

    def key(self, account, *scopes):
        return self.accounts.create_key(account, name="k", admin=False, scopes=scopes)

    def run(self, account, launch, ports, job_id):
        """Keep a run that is running on an instance."""
        self.store.launches.insert(launch, b"key", b"ticket")
        job = JobRun(
            job_id=job_id,
            user_id=account.user_id,
            key_id="",
            chute_id=CHUTE_ID,
            name="serve",
            arguments=json.dumps({}),
            limit_s=600,
            upload=False,
            rate=Rate("r", 1, 1),
            created_at_s=self.clock.now_s(),
            ports=tuple(JobPort(*one) for one in ports),
        )
        self.store.jobs.insert(job)
        self.store.jobs.advance(
            job_id, JobState.PENDING, JobState.STARTING, launch_id=launch.launch_id
        )
        self.store.jobs.advance(job_id, JobState.STARTING, JobState.RUNNING)

    @asynccontextmanager
    async def serving(self, runner):
        """Serve the public port before a runner, with a relay between them."""
        relay, door = Relay(), socket.create_server(("127.0.0.1", 0))
        listener = socket.create_server(("127.0.0.1", 0))
        await relay.start(door)
        relay.register(runner.launch_id, ticket=b"t" * 32, port=runner.port)
        self.address = InstanceAddress(
            launch_id=runner.launch_id,
            host="127.0.0.1",
            port=door.getsockname()[1],
            ticket=b"t" * 32,
            root=runner.root,
        )
        self.port = listener.getsockname()[1]
        plane = Plane(self.app, NoFast(), grace_s=0.0)
        task = asyncio.ensure_future(plane.serve(sockets=[listener]))
        try:
            yield self
        finally:
            self.reach.close()
            plane.should_exit = True
            await task
            await relay.close()
            self.store.close()


__all__ = ["CHUTE_ID", "LaunchState", "PortHouse"]
