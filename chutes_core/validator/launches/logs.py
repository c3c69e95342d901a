"""What an instance printed, as its developer reads it: the miner's tail, made into a stream.

Path: api/routes/instances -> here -> the miner's signed GET /logs/{launch id}. The runtimes keep
a sliding tail of an instance's output; `fresh` finds what is new between two looks at it.
Invariant: only the owner of the chute gets here, and only the validator that holds a launch is
answered by its miner.
"""

from collections.abc import Callable

from chutes_core.base.errors import Unavailable
from chutes_core.validator.domain.launches import Launch
from chutes_core.wire.control import LogTail
from chutes_core.wire.peers import SignedClient

MARK_CHARS = 2_000
GAP = "[… lines are missing here: more was printed than the miner keeps …]\n"
UrlOf = Callable[[str], str | None]
"""Given a miner's hotkey, the base URL of its HTTP, or None where it may not be dialled."""


class InstanceLogs:
    """Asks miners for the tails of their instances' output."""

    def __init__(self, client: SignedClient, url_of: UrlOf) -> None:
        self._client = client
        self._url_of = url_of

    async def tail(self, launch: Launch) -> str:
        """Return the last part of what an instance printed.

        Raises:
            Unavailable: ``miner_gone``, or the miner does not answer.
            ChutesError: the miner's own error.
        """
        url = self._url_of(launch.miner_hotkey)
        if url is None:
            raise Unavailable("miner_gone", "the miner of this instance cannot be reached")
        answer = await self._client.call(
            "GET", url, f"/logs/{launch.launch_id}", LogTail, peer_hotkey_ss58=launch.miner_hotkey
        )
        return answer.text


def fresh(before: str, now: str) -> str:
    r"""Return what a sliding tail shows now that it did not show before.

    >>> fresh("a\nb\n", "a\nb\nc\n")
    'c\n'
    >>> fresh("a\nb\n", "b\nc\n")
    'c\n'
    """
    if not before or now.startswith(before):
        return now[len(before) :]
    mark = before[-MARK_CHARS:]
    at = now.rfind(mark)
    if at >= 0:
        return now[at + len(mark) :]
    # The tail may be shorter than the mark: find the longest end of it that begins the new one.
    for length in range(min(len(mark), len(now)), 0, -1):
        if now.startswith(mark[-length:]):
            return now[length:]
    return GAP + now


def last_lines(text: str, count: int) -> str:
    """Return the last ``count`` lines of a text."""
    return "".join(text.splitlines(keepends=True)[-count:]) if count else ""
