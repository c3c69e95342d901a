"""Real worker processes around a real store: what the validator's main process is to them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from gateway_stand_in import Instance, World

from chutes_core.base.clock import SystemClock
from chutes_core.validator.billing.settle import Settlement
from chutes_core.validator.domain.money import Entry, Posting, user_credit
from chutes_core.validator.domain.snapshot import ChuteView, Snapshot
from chutes_core.validator.gateway.asgi import AsgiApp
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.workers.crew import Crew
from chutes_core.validator.gateway.workers.member import Member
from chutes_core.validator.gateway.workers.setup import Setup
from chutes_core.validator.pictures import Pictures
from chutes_core.validator.store.database import Store
from chutes_core.wire.http_server import HttpLimits

LONG_S = 90.0


async def control(scope, receive, send) -> None:
    """A control plane that says what it was asked."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    said = f"{scope['method']} {scope['path']} {len(body)} {scope['client'][0]}".encode()
    headers = [(b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


@dataclass
class CrewHouse:
    """Workers, what they decide by, and where their records go."""

    world: World
    store: Store
    crew: Crew
    pictures: Pictures
    settlement: Settlement
    owner_id: str
    key: str
    chute: ChuteView
    url: str

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    async def serve(self, *instances: Instance, concurrency: int = 8) -> None:
        chute_id = self.chute.chute_id
        self.world.instances[chute_id] = tuple(i.view(chute_id, concurrency) for i in instances)
        await self.pictures.refresh()

    async def settle(self) -> int:
        settled = await asyncio.to_thread(self.crew.journals.settle, self.settlement.drain)
        await self.pictures.refresh()
        return settled

    def balance(self) -> int:
        return self.store.ledger.balance(user_credit(self.owner_id))

    def recorded(self) -> list[str]:
        """Return the invocations in the ledger's store, in any order."""
        return [one.invocation_id for one in self.store.invocations.between(0, 2**62)]

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[list[httpx.AsyncClient]]:
        """Yield callers that each have a connection of their own."""
        async with contextlib.AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    httpx.AsyncClient(
                        base_url=self.url,
                        headers=self.auth,
                        trust_env=False,
                        verify=False,
                        timeout=LONG_S,
                        limits=httpx.Limits(max_connections=1),
                    )
                )
                for _ in range(count)
            ]

    def members(self) -> list[Member]:
        return list(self.crew._members.values())

    async def until(self, holds) -> None:
        """Wait until something that workers report is so; asked again after each report."""
        while not holds():
            await self.reported()

    async def reported(self) -> None:
        """Return after a report of a worker."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[None] = loop.create_future()
        original = Member._reported

        def noted(member: Member, head) -> None:
            original(member, head)
            if not heard.done():
                heard.set_result(None)

        Member._reported = noted  # type: ignore[method-assign]
        try:
            await asyncio.wait_for(heard, LONG_S)
        finally:
            Member._reported = original  # type: ignore[method-assign]


@asynccontextmanager
async def crewed(
    folder: Path,
    *,
    workers: int = 2,
    rao: int = 10**15,
    limits: GatewayLimits | None = None,
    app: AsgiApp = control,
    tls: tuple[Path, Path] | None = None,
    settles: bool = True,
    **crew_options: object,
) -> AsyncIterator[CrewHouse]:
    """Run workers on a free port, with one account that has ``rao``, one key and one chute.

    ``tls`` are the files of a certificate and its key. All that is recorded is settled in the end,
    unless ``settles`` says otherwise.
    """
    clock = SystemClock()
    store = Store(folder / "validator.sqlite", clock=clock)
    world = World()
    owner_id = world.user(spendable_rao=0)
    chute, key = world.chute(owner_id), world.key(owner_id)
    postings = (Posting(user_credit(owner_id), rao), Posting("chain:payments", -rao))
    store.ledger.apply(Entry("gift", "payment", 0, postings))
    setup = Setup(
        workers=workers,
        journal_folder=str(folder / "journal"),
        limits=limits or GatewayLimits(cold_wait_s=0.0, key_calls_per_s=10**6, key_burst=10**6),
        http=HttpLimits(),
        grace_s=20.0,
        log_level="ERROR",
        tls_certificate=None if tls is None else str(tls[0]),
        tls_key=None if tls is None else str(tls[1]),
    )
    crew = Crew(setup, control=app, clock=clock, **crew_options)  # type: ignore[arg-type]

    def picture() -> Snapshot:
        with store.transaction():
            for user_id, payer in world.payers.items():
                balance = store.ledger.balance(user_credit(user_id))
                world.payers[user_id] = replace(payer, spendable_rao=balance)
            world.drained = store.invocations.drained()
            return replace(world.snapshot(), ledger_entry=store.ledger.last_entry_id())

    pictures, settlement = Pictures(picture, crew.swap), Settlement(store)
    crew.bind(settlement.drain, pictures.refresh)
    await pictures.refresh()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", 0))
    serving = asyncio.ensure_future(crew.serve([listener]))
    ready = asyncio.ensure_future(crew.ready.wait())
    try:
        done, _ = await asyncio.wait(
            (serving, ready), timeout=LONG_S, return_when="FIRST_COMPLETED"
        )
        assert ready in done, serving
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield CrewHouse(world, store, crew, pictures, settlement, owner_id, key, chute, url)
    finally:
        ready.cancel()
        crew.should_exit = True
        await serving
        listener.close()
        if settles:
            crew.journals.settle(settlement.drain)
        store.close()
