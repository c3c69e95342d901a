"""Queries miners for their inventories, and other validators for the leases they know.

Path: validator/loops -> here -> wire/peers -> leases. Invariant: one slow or hostile peer delays
nobody else (bounded answers, bounded time, all at once), and nothing heard is believed beyond its
signatures.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from loguru import logger

from chutes_core.base.errors import ChutesError
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.wire.control import Inventory, LeaseList
from chutes_core.wire.lease import LEASES_PAGE, Lease
from chutes_core.wire.peer_http import PeerSession
from chutes_core.wire.peers import SignedClient
from chutes_core.wire.urls import check_url

MAX_LEASES_BYTES = 4 * 1024 * 1024
MAX_LEASE_PAGES = 256
PEER_TIMEOUT_S = 5.0
EXCHANGE_S = 30.0
"""For all pages of one validator; the next exchange goes on where a slow one stopped."""


@dataclass(frozen=True)
class MinerAddress:
    """A serving miner as the metagraph announces it."""

    hotkey: str
    ip: str
    port: int

    @property
    def url(self) -> str:
        """Return the base URL with the literal IP."""
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"http://{host}:{self.port}"


class Inventories:
    """The last inventory of every miner that answered."""

    def __init__(self, client: SignedClient, leases: LeaseBook) -> None:
        self._client = client
        self._leases = leases
        self._known: dict[str, Inventory] = {}
        self._read_to: dict[str, Lease] = {}  # by the URL of a validator that was too slow

    @property
    def known(self) -> Mapping[str, Inventory]:
        """Return hotkey -> last inventory."""
        return self._known

    async def query(self, miners: Sequence[MinerAddress]) -> int:
        """Ask all miners at once; return how many answered.

        A miner that does not answer keeps no inventory: what it had is not offered any more.
        """
        asked = [self._ask(miner) for miner in miners]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        self._known = {one.hotkey: one for one in answers if isinstance(one, Inventory)}
        _log_broken(answers)
        for hotkey, inventory in self._known.items():
            await asyncio.to_thread(self._leases.learn, inventory.leases, miner_hotkey=hotkey)
        return len(self._known)

    async def exchange(self, validators: Mapping[str, str], *, allow_private: bool) -> int:
        """Fetch the leases that other validators know; return how many were kept.

        Args:
            validators: hotkey -> committed URL.
            allow_private: dial private addresses too; on a devnet only.
        """
        urls = set(validators.values())
        self._read_to = {url: at for url, at in self._read_to.items() if url in urls}
        async with PeerSession(timeout_s=PEER_TIMEOUT_S) as peers:
            asked = [
                self._learn_from(peers, url, allow_private=allow_private) for url in sorted(urls)
            ]
            kept = await asyncio.gather(*asked, return_exceptions=True)
        _log_broken(kept)
        return sum(count for count in kept if isinstance(count, int))

    async def _learn_from(self, peers: PeerSession, url: str, *, allow_private: bool) -> int:
        """Read a validator's leases for `EXCHANGE_S` at most, and return how many were kept.

        A peer that forges, or whose pages do not go forward, is read no further.
        """
        pages = _Pages(self._leases, peers, url, self._read_to.pop(url, None))
        try:
            await check_url(url, allow_private=allow_private)
            await _within(pages.read(), EXCHANGE_S)
        except asyncio.TimeoutError:
            logger.info("leases not read to their end", url=url, kept=pages.kept)
            if pages.last is not None:
                self._read_to[url] = pages.last
        except ChutesError as error:
            logger.debug("leases not answered", url=url, error=error.code)
        return pages.kept

    async def _ask(self, miner: MinerAddress) -> Inventory | None:
        try:
            inventory = await self._client.call(
                "GET", miner.url, "/inventory", Inventory, peer_hotkey_ss58=miner.hotkey
            )
        except ChutesError as error:
            logger.debug("inventory not answered", miner=miner.hotkey, error=error.code)
            return None
        return inventory if inventory.hotkey == miner.hotkey else None


async def _within(reading: Coroutine[None, None, None], seconds: float) -> None:
    await asyncio.wait_for(reading, seconds)


class _Pages:
    """The leases of one validator, page after page; `last` is the last lease that was read."""

    def __init__(self, leases: LeaseBook, peers: PeerSession, url: str, last: Lease | None) -> None:
        self._leases = leases
        self._peers = peers
        self._url = url
        self.last = last
        self.kept = 0

    async def read(self) -> None:
        """Read to the end, or to the first page that does not go on from the last."""
        for _ in range(MAX_LEASE_PAGES):
            page = await _fetch_page(self._peers, self._url, self.last)
            learned = await asyncio.to_thread(self._leases.learn, page)
            self.kept += learned.kept
            forward = bool(page) and (self.last is None or page[-1].place > self.last.place)
            if len(page) < LEASES_PAGE or learned.forged or not forward:
                return
            self.last = page[-1]


async def _fetch_page(peers: PeerSession, url: str, last: Lease | None) -> tuple[Lease, ...]:
    query = "" if last is None else f"?after={quote(last.cursor)}"
    found = await peers.get(f"{url}/leases{query}", LeaseList, max_bytes=MAX_LEASES_BYTES)
    return found.leases


def _log_broken(answers: Sequence[object]) -> None:
    """Log what peers broke in a way that nobody foresaw; the others' answers count all the same."""
    for answer in answers:
        if isinstance(answer, Exception):
            logger.opt(exception=answer).warning("a peer's answer broke its reader")
