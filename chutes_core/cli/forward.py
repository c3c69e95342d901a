"""`chutes jobs forward`: a port of a running job as a port of this machine.

Invariants: it listens on loopback alone; every local connection is one of its own to the job, and
ends with it; when the command ends, by a signal or with the run, nothing is left open.
"""

import asyncio
import contextlib
import signal
from typing import Any
from urllib.parse import quote

import click

from chutes_core.base.errors import ChutesError, Conflict, NotFound
from chutes_core.cli.options import emit, json_option, note
from chutes_core.cli.serving import listen
from chutes_core.cli.tunnel import open_tunnel
from chutes_core.sdk import credentials
from chutes_core.sdk.client import ApiClient
from chutes_core.sdk.config import load_config
from chutes_core.sdk.credentials import Credentials
from chutes_core.wire.bridge import Ended, SocketEnd, carry

HOST = "127.0.0.1"
LOOK_S = 5.0  # between two looks at the run
IDLE_S = 7 * 86_400.0  # the validator's limit is what counts
_OVER = frozenset(("job_not_running", "no_such_run", "no_such_port"))


@click.command("forward")
@click.argument("job_id")
@click.argument("port_name")
@click.option("--local", type=click.IntRange(0, 65535), default=0, help="Default: any free port.")
@json_option
def forward(job_id: str, port_name: str, local: int, as_json: bool) -> None:
    """Make PORT_NAME of a running job a port of this machine, until Ctrl-C or the run's end."""
    config = load_config()
    base_url = config.require_api_url()
    signing = credentials.for_management(config)
    with ApiClient(base_url, signing) as client:
        port = _declared(client, job_id, port_name)
    # A hotkey signs one request a second; a key, where there is one, any number.
    each = credentials.for_calls(config) if config.api_key else signing
    asyncio.run(_Forward(base_url, signing, each, job_id, port).run(local, as_json=as_json))


def _declared(client: ApiClient, job_id: str, name: str) -> dict[str, Any]:
    """Return a port of a running run.

    Raises:
        NotFound: ``no_such_port``. Conflict: ``job_not_running``.
    """
    found = client.call("GET", f"/jobs/{quote(job_id, safe='')}", purpose="jobs")
    ports: list[dict[str, Any]] = found.get("ports", [])
    port = next((one for one in ports if one["name"] == name), None)
    if port is None:
        names = ", ".join(one["name"] for one in ports) or "none"
        raise NotFound(
            "no_such_port",
            f"the job has no port {name!r}",
            hint=f"it declares: {names}",
            http_status=200,
        )
    if found["state"] != "running":
        raise Conflict(
            "job_not_running",
            f"the job is {found['state']}; its ports are there while it is running",
            hint=f"chutes jobs watch {job_id} tells each new state",
            http_status=200,
        )
    return port


class _Forward:
    def __init__(
        self,
        base_url: str,
        signing: Credentials,
        each: Credentials,
        job_id: str,
        port: dict[str, Any],
    ) -> None:
        self._base_url = base_url
        self._signing = signing
        self._each = each
        self._job_id = job_id
        self._port = port
        self._open: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._refusal: ChutesError | None = None

    async def run(self, local: int, *, as_json: bool) -> None:
        """Listen until told to end, or until the run has ended.

        Raises:
            ChutesError: why no connection can be made any more.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._over.set)
        sock = listen(HOST, local, option="--local")
        server = await asyncio.start_server(self._accepted, sock=sock)
        watching = asyncio.ensure_future(self._watch())
        try:
            self._say(sock.getsockname()[1], as_json=as_json)
            await self._over.wait()
        finally:
            server.close()
            tasks = [watching, *self._open]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._refusal is not None:
            raise self._refusal

    def _say(self, number: int, *, as_json: bool) -> None:
        name, proto = self._port["name"], self._port["proto"]
        address = f"http://{HOST}:{number}/" if proto == "http" else f"{HOST}:{number}"
        text = f"{address} is port {name} of job {self._job_id}; Ctrl-C ends it"
        document = {"job_id": self._job_id, "name": name, "host": HOST, "port": number}
        emit(document, as_json=as_json, text=text)

    async def _watch(self) -> None:
        """End with the run."""
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(ChutesError):  # the next look may do better
                if await asyncio.to_thread(self._has_ended):
                    note(f"job {self._job_id} does not run any more")
                    self._over.set()

    def _has_ended(self) -> bool:
        path = f"/jobs/{quote(self._job_id, safe='')}"
        with ApiClient(self._base_url, self._signing) as client:
            try:
                found = client.call("GET", path, purpose="jobs")
            except NotFound:  # it was deleted
                return True
        return bool(found["state"] != "running")

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        local = SocketEnd(reader, writer)
        try:
            await self._carry(local)
        except ChutesError as error:
            note(f"no connection to the job: {error}")
            if error.code in _OVER:
                self._refusal = error
                self._over.set()
        except asyncio.CancelledError:
            pass  # the command ends; nobody awaits this task's result
        finally:
            local.abort()
            self._open.discard(task)

    async def _carry(self, local: SocketEnd) -> None:
        tunnel = await open_tunnel(self._base_url, self._each, self._job_id, self._port["name"])
        alive = asyncio.ensure_future(tunnel.keep_alive())
        try:
            if await carry(local, tunnel, idle_s=IDLE_S) is Ended.WHOLE:
                await local.close()
        finally:
            alive.cancel()
            await asyncio.gather(alive, return_exceptions=True)
            tunnel.abort()
