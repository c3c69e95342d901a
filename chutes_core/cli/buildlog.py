"""Reading a build log: a stream of events while the image is built, plain text afterwards.

Format of shared/PUBLIC_API (GET /images/{id}/logs): lines `data: {"log": {"log_type", "log"},
"offset"}`, a lone `.` to keep the connection alive, `DONE` at the end. Invariant: no line is
printed twice: each connection begins at the last offset seen, and of a plain text, which is always
whole, the lines that were printed before are skipped.
"""

import json
import time
from collections.abc import Callable

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.sdk.client import ApiClient

_TRIES = 5
_PAUSE_S = 1.0


class LogReader:
    """Follows the log of one image.

    Args:
        client: signs the requests.
        image_id: whose log.
        write: gets each line.
        sleep: waits between tries.
    """

    def __init__(
        self,
        client: ApiClient,
        image_id: str,
        write: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._path = f"/images/{image_id}/logs"
        self._write = write
        self._sleep = sleep
        self._offset: str | None = None
        self._written = 0

    def follow(self, deadline: float) -> None:
        """Print what is new until the server says DONE, ends the log, or the deadline passes.

        Raises:
            Unavailable: the server cannot be reached, several times in a row.
        """
        failures = 0
        while time.monotonic() < deadline:
            try:
                self._read_once(deadline)
                return
            except Unavailable as error:
                failures += 1
                if failures >= _TRIES or not _passes(error):
                    raise
                self._sleep(_PAUSE_S)

    def _read_once(self, deadline: float) -> None:
        params = {"offset": self._offset} if self._offset is not None else None
        plain = 0
        for line in self._client.lines(self._path, purpose="images", params=params):
            if line.strip() in ("DONE", "data: DONE") or time.monotonic() > deadline:
                return
            if line.strip() in ("", ".", "data: ."):
                continue
            if line.startswith("data:"):
                self._event(line.removeprefix("data:").strip())
                continue
            plain += 1
            if plain > self._written:
                self._show(line)

    def _event(self, text: str) -> None:
        try:
            event = json.loads(text)
            shown = str(event["log"]["log"])
        except (ValueError, KeyError, TypeError):
            shown, event = text, {}
        for line in shown.rstrip("\n").split("\n"):
            self._show(line)
        if "offset" in event:
            self._offset = str(event["offset"])

    def _show(self, line: str) -> None:
        self._written += 1
        self._write(line)


def _passes(error: ChutesError) -> bool:
    """Return whether another try makes sense: no answer, or a 503 or 504."""
    return error.code == "unreachable" or error.facts.get("http_status") in (503, 504)
