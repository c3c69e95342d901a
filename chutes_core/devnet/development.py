"""The dev_ methods: blocks on demand, state and time by force, and faults.

Answered only where the chain was started with --dev-controls. Invariant: each control takes effect
before its answer; an option that does not exist is refused, never ignored.

dev_fault(kind, options) knows:

    drop_connections                        every websocket breaks, without a closing frame
    refuse_connections                      ... and no new one is taken until healed
    lose_answer      method, times, processed, close   the request is (not) carried out, no answer
    stall_blocks, stall_finality            until healed; dev_newBlock still makes blocks
    refuse_extrinsic signer, call, times, code, message, data
    delay_extrinsic  signer, call, times, blocks       waits that many blocks; null until healed
    evict_extrinsic  signer, call, times, silent       accepted, then thrown out of the pool
    fail_extrinsic   signer, call, times               included, pays, ends in ExtrinsicFailed
    expire_era       signer, call, times               waits until its era is over
    take_nonce       signer, call, times               another signer is faster with the same nonce
    prune_state      blocks                            older state is gone (except on /archive)
    spec_version     spec, transaction                 the next block upgrades the runtime
    retract_blocks   blocks, lose                      the newest unfinalized blocks are undone

Rules on extrinsics catch the next one that is submitted, or with ``"waiting": true`` those that
wait in the pool already.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from chutes_core.base.errors import Invalid
from chutes_core.devnet.author import Author
from chutes_core.devnet.chain import Chain
from chutes_core.devnet.faults import Loss, Selector, SubmitRule
from chutes_core.devnet.pool import Pooled
from chutes_core.devnet.version import RuntimeVersion

MAX_BLOCKS = 10_000

_REFUSAL = (1010, "Invalid Transaction", "refused by a devnet fault")

Fault = Callable[..., Any]


class Development:
    """Carries out the controls of one chain.

    Args:
        chain: what they act on.
        author: makes the blocks.
    """

    def __init__(self, chain: Chain, author: Author) -> None:
        self._chain = chain
        self._author = author
        self._faults: dict[str, Fault] = {
            "drop_connections": chain.faults.drop_connections,
            "refuse_connections": self._refuse_connections,
            "lose_answer": self._lose_answer,
            "stall_blocks": lambda: setattr(chain.faults, "stall_blocks", True),
            "stall_finality": lambda: setattr(chain.faults, "stall_finality", True),
            "refuse_extrinsic": self._refuse,
            "delay_extrinsic": self._delay,
            "evict_extrinsic": self._evict,
            "fail_extrinsic": self._fail,
            "expire_era": self._expire,
            "take_nonce": self._take_nonce,
            "prune_state": self._prune,
            "spec_version": self._spec_version,
            "retract_blocks": self._retract,
        }

    def methods(self) -> dict[str, Callable[..., Any]]:
        """Return the JSON-RPC methods by name."""
        return {
            "dev_newBlock": self.new_block,
            "dev_setStorage": self.set_storage,
            "dev_setTime": self.set_time,
            "dev_fault": self.fault,
            "dev_heal": self.heal,
            "dev_faults": self._chain.faults.active,
        }

    def new_block(self, options: Mapping[str, Any] | None = None) -> str:
        """Make ``count`` blocks (default 1); return the last one's hash."""
        count = _only(options, count=1)["count"]
        for _ in range(_bounded("count", count)):
            self._author()
        return "0x" + self._chain.best.hash.hex()

    def set_storage(self, entries: Any) -> str:
        """Set storage in a block of its own; return that block's hash.

        Args:
            entries: ``[[key, value or null], …]`` in hex, or by name
                ``{pallet: {item: value, map: [[[key part, …], value], …]}}``.
        """
        changes = dict(self._raw(entries) if isinstance(entries, list) else self._named(entries))
        return "0x" + self._author(changes).hash.hex()

    def set_time(self, when: int | str) -> int:
        """Set the time of the next block, in milliseconds or ISO 8601; return it in ms."""
        if isinstance(when, str):
            when = round(datetime.fromisoformat(when).timestamp() * 1_000)
        now_ms = int(when)
        if now_ms < 0:
            raise Invalid("time_negative", "the time is before 1970")
        self._author.set_time(now_ms)
        return now_ms

    def fault(self, kind: str, options: Mapping[str, Any] | None = None) -> Any:
        """Let something go wrong; return what the fault tells, mostly null.

        Raises:
            Invalid: ``fault_unknown``, or a TypeError for an unknown option.
        """
        fault = self._faults.get(kind)
        if fault is None:
            raise Invalid("fault_unknown", f"no fault {kind}; there are {sorted(self._faults)}")
        return fault(**dict(options or {}))

    def heal(self, kind: str | None = None) -> None:
        """End one kind of fault, or all; what was held back goes on."""
        self._chain.faults.heal(kind)
        if kind in {None, "delay_extrinsic", "expire_era"}:
            for pooled in self._chain.pool.pending():
                pooled.held_until = 0

    # connections and answers

    def _refuse_connections(self) -> int:
        self._chain.faults.refuse_connections = True
        return self._chain.faults.drop_connections()

    def _lose_answer(
        self,
        *,
        method: str | None = None,
        times: int | None = 1,
        processed: bool = True,
        close: bool = True,
    ) -> None:
        self._chain.faults.losses.append(Loss(method, times, processed, close))

    # extrinsics

    def _refuse(
        self,
        *,
        code: int = _REFUSAL[0],
        message: str = _REFUSAL[1],
        data: str = _REFUSAL[2],
        **which: Any,
    ) -> None:
        self._rule("refuse_extrinsic", which, refusal=(code, message, data))

    def _delay(self, *, blocks: int | None = None, waiting: bool = False, **which: Any) -> int:
        first = self._chain.best.number + 1
        until = float("inf") if blocks is None else first + blocks
        return self._now_or_later("delay_extrinsic", which, waiting, _holder(until), blocks=blocks)

    def _expire(self, *, waiting: bool = False, **which: Any) -> int:
        return self._now_or_later("expire_era", which, waiting, _holder(float("inf")))

    def _evict(self, *, silent: bool = False, waiting: bool = False, **which: Any) -> int:
        def evict(pooled: Pooled) -> None:
            self._chain.evict(pooled, silent=silent)

        return self._now_or_later("evict_extrinsic", which, waiting, evict, silent=silent)

    def _fail(self, *, waiting: bool = False, **which: Any) -> int:
        def fail(pooled: Pooled) -> None:
            self._chain.faults.failing.add(pooled.extrinsic.hash)

        return self._now_or_later("fail_extrinsic", which, waiting, fail)

    def _take_nonce(self, *, now: bool = False, waiting: bool = False, **which: Any) -> Any:
        if now:
            return "0x" + self._chain.take_nonce(which["signer"]).hex()

        def take(pooled: Pooled) -> None:
            self._chain.take_nonce(pooled.extrinsic.signer, pooled.extrinsic.nonce)

        return self._now_or_later("take_nonce", which, waiting, take)

    def _now_or_later(
        self,
        kind: str,
        which: Mapping[str, Any],
        waiting: bool,
        act: Callable[[Pooled], None],
        **rule: Any,
    ) -> int:
        if not waiting:
            self._rule(kind, which, **rule)
            return 0
        selector = Selector(**which)
        caught = [p for p in self._chain.pool.pending() if selector.catches(p.extrinsic)]
        caught = caught if selector.times is None else caught[: selector.times]
        for pooled in caught:
            act(pooled)
        return len(caught)

    def _rule(self, kind: str, which: Mapping[str, Any], **rule: Any) -> None:
        self._chain.faults.submit_rules.append(SubmitRule(kind, Selector(**which), **rule))

    # the chain

    def _prune(self, *, blocks: int) -> None:
        self._chain.faults.kept_state_blocks = _bounded("blocks", blocks)

    def _spec_version(self, *, spec: int, transaction: int | None = None) -> str:
        current = self._chain.versions.at(self._chain.best.number + 1)
        version = RuntimeVersion(int(spec), int(transaction or current.transaction))
        self._chain.change_version(version)
        return self.new_block()

    def _retract(self, *, blocks: int = 1, lose: bool = False) -> int:
        return self._chain.retract(_bounded("blocks", blocks), lose=lose)

    # storage

    @staticmethod
    def _raw(entries: list[Any]) -> list[tuple[bytes, bytes | None]]:
        return [(_octets(key), None if value is None else _octets(value)) for key, value in entries]

    def _named(self, entries: Mapping[str, Any]) -> list[tuple[bytes, bytes | None]]:
        codec = self._chain.codec
        changes = []
        for pallet, items in entries.items():
            for item, content in items.items():
                is_map = bool(codec.entry(pallet, item).param_types)
                for params, value in content if is_map else [((), content)]:
                    raw = None if value is None else codec.encode_value(pallet, item, value)
                    changes.append((codec.key(pallet, item, tuple(params)), raw))
        return changes


def _holder(until: float) -> Callable[[Pooled], None]:
    def hold(pooled: Pooled) -> None:
        pooled.held_until = until

    return hold


def _only(options: Mapping[str, Any] | None, **defaults: Any) -> dict[str, Any]:
    unknown = set(options or {}) - set(defaults)
    if unknown:
        raise Invalid("option_unknown", f"no option {sorted(unknown)}; there is {sorted(defaults)}")
    return {**defaults, **dict(options or {})}


def _bounded(name: str, value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= MAX_BLOCKS:
        raise Invalid("count_out_of_range", f"{name} is from 1 to {MAX_BLOCKS}")
    return value


def _octets(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
