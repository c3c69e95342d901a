"""What a connection follows: heads, storage keys, runtime version, the fate of an extrinsic.

Path: `chain` announces a block -> here -> the session's outbox. Invariant: a subscription ends
with its session, and its first notification never overtakes the answer that carries its id.
"""

from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from chutes_core.base.errors import Exhausted
from chutes_core.devnet import version
from chutes_core.devnet.blocks import Block
from chutes_core.devnet.chain import Chain

MAX_SUBSCRIPTIONS = 1_024
MAX_KEYS = 1_024

_FINAL_WORDS = frozenset(("finalized", "invalid", "dropped", "usurped"))


class Session(Protocol):
    """One connection, as this module sees it."""

    subscriptions: dict[str, Callable[[], None]]
    can_subscribe: bool
    is_archive: bool

    def later(self, message: dict[str, Any]) -> None:
        """Queue a notification behind the answer to the current request."""
        ...


class Subscriptions:
    """Starts and ends subscriptions.

    Args:
        chain: what is followed.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._ids = count(1)

    def methods(self) -> dict[str, Callable[..., Any]]:
        """Return the subscribing and unsubscribing methods; the session is their first argument."""
        methods: dict[str, Callable[..., Any]] = {
            "author_submitAndWatchExtrinsic": self._watch_extrinsic,
            "author_unwatchExtrinsic": self._end,
            "state_subscribeStorage": self._storage,
            "state_unsubscribeStorage": self._end,
            "state_subscribeRuntimeVersion": self._runtime_version,
            "state_unsubscribeRuntimeVersion": self._end,
        }
        for words, notice, finalized in (
            (("NewHead", "NewHeads"), "chain_newHead", False),
            (("AllHeads",), "chain_allHead", False),
            (("FinalizedHeads", "FinalisedHeads"), "chain_finalizedHead", True),
        ):
            for word in words:
                methods[f"chain_subscribe{word}"] = self._heads(notice, finalized=finalized)
                methods[f"chain_unsubscribe{word}"] = self._end
        return methods

    def _heads(self, notice: str, *, finalized: bool) -> Callable[[Session], str]:
        chain = self._chain

        def subscribe(session: Session) -> str:
            listeners = chain.on_finalized if finalized else chain.on_best
            identity = self._identity(session)

            def announce(block: Block) -> None:
                session.later(_notification(notice, identity, block.header_json()))

            session.subscriptions[identity] = lambda: listeners.remove(announce)
            listeners.append(announce)
            announce(chain.finalized if finalized else chain.best)
            return identity

        return subscribe

    def _watch_extrinsic(self, session: Session, raw: str) -> str:
        identity = self._identity(session)

        def tell(status: Any) -> None:
            if identity in session.subscriptions:
                session.later(_notification("author_extrinsicUpdate", identity, status))
            words = {status} if isinstance(status, str) else set(status)
            if words & _FINAL_WORDS:
                session.subscriptions.pop(identity, None)

        session.subscriptions[identity] = lambda: None
        try:
            self._chain.submit(bytes.fromhex(raw.removeprefix("0x")), tell)
        except BaseException:
            del session.subscriptions[identity]
            raise
        return identity

    def _storage(self, session: Session, keys: list[str] | None = None) -> str:
        wanted = [bytes.fromhex(key.removeprefix("0x")) for key in keys or []]
        if len(wanted) > MAX_KEYS:
            raise Exhausted("too_many_keys", f"at most {MAX_KEYS} keys a subscription")
        identity = self._identity(session)
        chain = self._chain
        seen: dict[bytes, bytes | None] = {}

        def announce(block: Block) -> None:
            state = chain.store.at(block.number)
            values = {key: state.get(key) for key in wanted}
            changed = [key for key in wanted if key not in seen or seen[key] != values[key]]
            seen.update(values)
            if changed:
                changes = [[_hex(key), _hex(values[key])] for key in changed]
                result = {"block": "0x" + block.hash.hex(), "changes": changes}
                session.later(_notification("state_storage", identity, result))

        session.subscriptions[identity] = lambda: chain.on_best.remove(announce)
        chain.on_best.append(announce)
        announce(chain.best)
        return identity

    def _runtime_version(self, session: Session) -> str:
        identity = self._identity(session)
        chain = self._chain

        def announce(changed: version.RuntimeVersion) -> None:
            result = version.runtime_version_json(changed)
            session.later(_notification("state_runtimeVersion", identity, result))

        session.subscriptions[identity] = lambda: chain.on_version.remove(announce)
        chain.on_version.append(announce)
        announce(chain.versions.at(chain.best.number + 1))
        return identity

    @staticmethod
    def _end(session: Session, identity: str) -> bool:
        end = session.subscriptions.pop(str(identity), None)
        if end is None:
            return False
        end()
        return True

    def _identity(self, session: Session) -> str:
        if len(session.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise Exhausted("too_many_subscriptions", f"at most {MAX_SUBSCRIPTIONS} a connection")
        return f"devnet{next(self._ids)}"


def _notification(method: str, identity: str, result: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "method": method,
        "params": {"subscription": identity, "result": result},
    }


def _hex(data: bytes | None) -> str | None:
    return None if data is None else "0x" + data.hex()
