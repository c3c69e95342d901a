"""Archives of images fetched from validators: streamed, and taken up again where they broke off.

Path: a grant's ImageRef (kind ``docker``) -> `Archives.fetch` -> the runtime loads the file. The
answer is not signed, as a stream cannot be; the grant was, and holds the SHA-256. Invariant: a file
under its final name has that hash; what was fetched before a break is kept and asked for no second
time (Range), unless it turns out to be wrong as a whole; memory stays flat.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import aiohttp

from chutes_core.base.errors import (
    ChutesError,
    Exhausted,
    ProtocolError,
    TimedOut,
    TooLarge,
    Unavailable,
)
from chutes_core.miner.pulls import Pull, Pulls
from chutes_core.miner.reasons import host_said
from chutes_core.wire.control import ImageRef

MAX_ARCHIVE_BYTES = 80 * 1024**3
TRIES = 5
PAUSE_S = 1.0
SILENCE_S = 60.0
"""How long a transfer may stand still; the launch's own deadline bounds it as a whole."""
CHUNK_BYTES = 256 * 1024
_GOES_ON = "is the validator up, and reached from here? a next launch goes on from there"
_PREFIX = "/launches/"


class Archives:
    """The folder of fetched archives.

    Args:
        directory: made if missing; half-fetched files stay in it over a restart.
        tries: how often a broken transfer is taken up again without any new byte.
        pause_s: between two tries.
        measured: told the bytes and seconds of each transfer.
        pulls: shown how far each transfer is.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tries: int = TRIES,
        pause_s: float = PAUSE_S,
        measured: Callable[[int, float], None] | None = None,
        pulls: Pulls | None = None,
    ) -> None:
        self._measured = measured
        self._pulls = pulls or Pulls()
        self._directory = directory
        self._tries = tries
        self._pause_s = pause_s
        self._locks: dict[str, asyncio.Lock] = {}
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def fetch(self, url: str, image: ImageRef) -> Path:
        """Return the archive's file, fetched from the validator at ``url`` where it is missing.

        Raises:
            ProtocolError: ``bad_image_ref``, ``archive_mismatch``, ``image_refused``,
                ``bad_answer``.
            Unavailable: ``disk_full``, ``peer_unreachable``. TimedOut: ``peer_timeout``.
            Exhausted: ``transfers_busy``.
        """
        _check(image)
        path = self._directory / f"{image.sha256}.tar"
        async with self._locks.setdefault(image.sha256, asyncio.Lock()):
            if not await asyncio.to_thread(path.exists):
                part = path.with_suffix(".part")
                began, had = time.monotonic(), await asyncio.to_thread(_size, part)
                with self._pulls.fetching(
                    image.image_id,
                    image.name,
                    "archive",
                    total_bytes=image.size_bytes,
                    had_bytes=had,
                ) as pull:
                    await self._fetch(url, image, part, pull)
                if self._measured is not None:
                    self._measured(image.size_bytes - had, time.monotonic() - began)
                await asyncio.to_thread(_keep, part, path, image)
        return path

    def forget(self, sha256: str) -> None:
        """Remove an archive, fetched or half-fetched; the engine has it, or nobody wants it."""
        for suffix in (".tar", ".part"):
            (self._directory / f"{sha256}{suffix}").unlink(missing_ok=True)

    async def _fetch(self, url: str, image: ImageRef, part: Path, pull: Pull) -> None:
        """Ask for what is missing until nothing is; progress resets the count of tries."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_S)
        failed = 0
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            while (have := await asyncio.to_thread(_size, part)) < image.size_bytes:
                try:
                    await self._fetch_rest(session, url, image, part, pull)
                except (Unavailable, Exhausted) as error:
                    if error.code == "disk_full":
                        raise
                    got_more = await asyncio.to_thread(_size, part) > have
                    failed = 1 if got_more else failed + 1
                    if failed >= self._tries:
                        raise
                    await asyncio.sleep(self._pause_s * failed)

    async def _fetch_rest(
        self, session: aiohttp.ClientSession, url: str, image: ImageRef, part: Path, pull: Pull
    ) -> None:
        have = await asyncio.to_thread(_size, part)
        headers = {"Authorization": f"Launch {image.token}"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{image.sha256}"'}
        try:
            async with session.get(
                url + image.path, headers=headers, allow_redirects=False
            ) as response:
                if response.status not in (200, 206):
                    raise await _refusal(response)
                start = have if response.status == 206 else 0
                await asyncio.to_thread(_room_for, part.parent, image.size_bytes - start)
                await _write(
                    response,
                    part,
                    start,
                    image.size_bytes,
                    lambda got: self._pulls.moved(pull, got),
                )
        except (TimeoutError, asyncio.TimeoutError) as error:
            text = f"{url} sends nothing for {SILENCE_S:.0f} s"
            raise TimedOut("peer_timeout", text, hint=_GOES_ON) from error
        except aiohttp.ClientError as error:
            text = f"the transfer of the image broke off: {error}"
            raise Unavailable("peer_unreachable", text, hint=_GOES_ON) from error


async def _write(
    response: aiohttp.ClientResponse,
    part: Path,
    start: int,
    size_bytes: int,
    moved: Callable[[int], None],
) -> None:
    file = await asyncio.to_thread(_open_at, part, start)
    try:
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            start += len(chunk)
            if start > size_bytes:
                raise _mismatch("the archive is longer than was granted")
            await asyncio.to_thread(_on_disk(file.write), chunk)
            moved(start)
    finally:
        await asyncio.to_thread(file.close)


def _check(image: ImageRef) -> None:
    if not image.path.startswith(_PREFIX) or ".." in image.path or not image.token.isascii():
        raise ProtocolError("bad_image_ref", "the image's path leads elsewhere")
    if image.size_bytes > MAX_ARCHIVE_BYTES:
        raise TooLarge("bad_image_ref", f"the archive is over {MAX_ARCHIVE_BYTES} bytes")


async def _refusal(response: aiohttp.ClientResponse) -> ChutesError:
    raw = await response.content.read(4096)
    text = f"the validator answered {response.status}: {raw.decode(errors='replace')[:300]}"
    if response.status == 429:
        return Exhausted("transfers_busy", text, hint="the miner asks again by itself")
    if response.status >= 500:
        return Unavailable("peer_unreachable", text, hint=_GOES_ON)
    if response.status in (401, 403, 404, 409):
        hint = "the launch is over, or its image is gone: the miner asks for a new launch by itself"
        return ProtocolError("image_refused", text, hint=hint)
    return ProtocolError("bad_answer", text, hint="the validator's log says more")


def _open_at(part: Path, start: int) -> FileIO:
    file = part.open("r+b" if part.exists() else "w+b", buffering=0)
    file.truncate(start)
    file.seek(start)
    return file


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _room_for(directory: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < size_bytes:
        raise _full(f"{size_bytes} bytes are needed for the image, {free} are free")


def _on_disk(write: Callable[[memoryview], int | None]) -> Callable[[bytes], None]:
    def checked(chunk: bytes) -> None:
        view = memoryview(chunk)
        try:
            while view:
                view = view[write(view) or 0 :]  # a raw file may take less than it is given
        except OSError as error:
            raise _full(host_said(error)) from error

    return checked


def _mismatch(text: str) -> ProtocolError:
    return ProtocolError(
        "archive_mismatch",
        text,
        hint="it was thrown away; if it comes again, the validator has to build the image anew",
    )


def _full(text: str) -> Unavailable:
    return Unavailable(
        "disk_full",
        f"an image's archive cannot be written: {text}",
        hint="free space under the miner's data_dir",
    )


def _keep(part: Path, path: Path, image: ImageRef) -> None:
    """Check the whole file and give it its name; a wrong one is thrown away."""
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
        os.fsync(file.fileno())
    if digest.hexdigest() != image.sha256:
        part.unlink()
        raise _mismatch("the archive is not the one that was granted")
    part.replace(path)
