"""An inference server beside the chute: started by a start-up hook, awaited, watched.

Runs inside the instance. The server listens on the instance's loopback alone, behind a key that
only this process knows; the chute's passthrough cords hand requests on to it. Invariant: when the
hook returns the server answers, and when the server ends so does the instance, which the network
then replaces.
"""

import asyncio
import importlib
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chutes_core.base.errors import Invalid, Unavailable

PORT = 10101
READY_PATH = "/v1/models"
_POLL_S = 1.0
_STOP_S = 10.0


class Engine:
    """One server process.

    Args:
        arguments: what follows the Python interpreter, without the key, host and port.
        environ: variables added to those of this process.
        port: where it listens.
        on_end: called when it ends by itself; by default the instance is stopped.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str] | None = None,
        *,
        port: int = PORT,
        on_end: Callable[[int], None] | None = None,
    ) -> None:
        self._arguments = tuple(arguments)
        self._environ = dict(environ or {})
        self._port = port
        self._on_end = on_end or _stop_instance
        self._key = secrets.token_urlsafe(32)
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Return what a request to the server must carry."""
        return {"Authorization": f"Bearer {self._key}"}

    async def start(self) -> None:
        """Start the server and return once it answers.

        Raises:
            Unavailable: ``engine_ended``: it ended before it answered.
        """
        place = ("--host", "127.0.0.1", "--port", str(self._port), "--api-key", self._key)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._arguments, *place, env={**os.environ, **self._environ}
        )
        while not await self._answers():
            if self._process.returncode is not None:
                raise Unavailable(
                    "engine_ended",
                    f"the engine ended with {self._process.returncode} before it answered",
                    hint="the instance's log has what it said",
                )
            await asyncio.sleep(_POLL_S)
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End the server, by force where it does not obey."""
        if self._watcher is not None:
            self._watcher.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()

    async def _answers(self) -> bool:
        import httpx

        url = f"http://127.0.0.1:{self._port}{READY_PATH}"
        async with httpx.AsyncClient(trust_env=False, timeout=_POLL_S * 5) as client:
            try:
                return (await client.get(url, headers=self.headers)).status_code == 200
            except httpx.TransportError:
                return False

    async def _watch(self) -> None:
        assert self._process is not None
        self._on_end(await self._process.wait())


def engine_arguments(given: str | None, refused: Sequence[str]) -> list[str]:
    """Return a developer's own arguments for the engine as a list.

    Raises:
        Invalid: ``engine_argument_refused`` for one that the template itself sets.
    """
    words = (given or "").replace("\\\n", " ").split()
    for word in words:
        if word.partition("=")[0] in refused:
            raise Invalid(
                "engine_argument_refused",
                f"the template sets {word.partition('=')[0]} itself",
                hint="leave it out of engine_args; revision= and node_selector= have their own",
            )
    return words


def has_argument(words: Sequence[str], *names: str) -> bool:
    """Return whether one of the options is among the arguments."""
    return any(word.partition("=")[0] in names for word in words)


def download(model_name: str, revision: str) -> str:
    """Fetch a model of Hugging Face into the instance's cache and return its folder."""
    hub = importlib.import_module("huggingface_hub")  # the image has it
    return str(hub.snapshot_download(repo_id=model_name, revision=revision))


def checked_revision(revision: str | None, model_name: str) -> str:
    """Return the revision that a model is pinned to.

    Raises:
        Invalid: ``revision_missing``.
    """
    if not revision:
        raise Invalid(
            "revision_missing",
            f"say which revision of {model_name} is meant, so that every instance serves the same",
            hint='revision="…": the commit shown under "Files and versions" at Hugging Face',
        )
    return revision


def attach(chute: Any, make: Callable[[], Engine], model_name: str, revision: str) -> None:
    """Give a chute the hooks that fetch the model, start its engine and end it."""

    @chute.on_startup()  # type: ignore[untyped-decorator]
    async def start_engine(self: Any) -> None:
        await asyncio.to_thread(download, model_name, revision)
        self.engine = make()
        await self.engine.start()
        self.passthrough_headers.update(self.engine.headers)

    @chute.on_shutdown()  # type: ignore[untyped-decorator]
    async def stop_engine(self: Any) -> None:
        if engine := getattr(self, "engine", None):
            await engine.stop()


def _stop_instance(exit_code: int) -> None:
    del exit_code
    os.kill(os.getpid(), signal.SIGTERM)
