"""A test's remote control of a devnet: blocks, time, storage and faults, over plain HTTP.

    controls = devnet.controls()
    controls.fault("lose_answer", method="author_submitExtrinsic")
    controls.new_block(3)
    controls.heal()

Works while websockets are dropped or refused. Invariant: a call returns after the control has
taken effect. The faults and their options are listed in `development`.
"""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from chutes_core.base.errors import Invalid, Unavailable

TIMEOUT_S = 30.0


class Controls:
    """Speaks to one devnet that was started with --dev-controls.

    Args:
        url: its ``ws://`` address.
        timeout_s: for one call.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), parts.port
        self._timeout_s = timeout_s
        self._ids = count(1)

    def new_block(self, number: int = 1) -> str:
        """Make blocks at once, also while they are stalled; return the last one's hash."""
        return str(self.call("dev_newBlock", {"count": number}))

    def set_storage(self, entries: Any) -> str:
        """Set storage in a block of its own; return that block's hash.

        Args:
            entries: ``{pallet: {item: value, map: [[[key part, …], value], …]}}``, or raw pairs
                ``[[key, value or None], …]`` in hex.
        """
        return str(self.call("dev_setStorage", entries))

    def set_time(self, now_ms: int) -> None:
        """Give the next block this time (Unix, milliseconds); time runs on from it."""
        self.call("dev_setTime", now_ms)

    def fault(self, kind: str, **options: Any) -> Any:
        """Let something go wrong; see `development` for kinds and options."""
        return self.call("dev_fault", kind, options)

    def heal(self, kind: str | None = None) -> None:
        """End one kind of fault, or all."""
        self.call("dev_heal", kind)

    def faults(self) -> list[str]:
        """Return the faults in force."""
        return list(self.call("dev_faults"))

    @contextmanager
    def during(self, kind: str, **options: Any) -> Iterator[Any]:
        """Have a fault for the length of a ``with`` block."""
        try:
            yield self.fault(kind, **options)
        finally:
            self.heal(kind)

    def best(self) -> int:
        """Return the newest block's number."""
        return self._number(self.call("chain_getHeader"))

    def finalized(self) -> int:
        """Return the finalized block's number."""
        return self._number(self.call("chain_getHeader", self.call("chain_getFinalizedHead")))

    def call(self, method: str, *params: Any) -> Any:
        """Call any JSON-RPC method and return its result.

        Raises:
            Invalid: ``devnet_refused``: it answered with an error.
            Unavailable: ``devnet_gone``: it did not answer.
        """
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request("POST", "/", json.dumps(request))
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable("devnet_gone", f"the devnet does not answer: {error}") from error
        finally:
            connection.close()
        if "error" in answer:
            raise Invalid("devnet_refused", f"{method}: {answer['error']['message']}")
        return answer["result"]

    @staticmethod
    def _number(header: Mapping[str, Any]) -> int:
        return int(header["number"], 16)
